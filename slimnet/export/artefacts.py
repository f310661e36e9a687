"""All files that a deployment needs, written to one folder and proven there."""

from __future__ import annotations

from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path

from torch import Tensor, nn

from slimnet.export.onnx_file import Translated, translate, write_onnx
from slimnet.export.plan_file import plan_sha256, save_plan, save_weights
from slimnet.export.program import save_program
from slimnet.groups import channels_of
from slimnet.load import sha256_of
from slimnet.records import Artefacts, Inputs, Plan
from slimnet.tasks import fill_batch


def provenance(source_sha256: str | None, plan: Plan) -> dict[str, str]:
    """Return where a slim network comes from, for the metadata of its ONNX files."""
    return {
        "slimnet_version": version("slimnet"),
        "source_sha256": source_sha256 or "",
        "plan_sha256": plan_sha256(plan),
    }


def write_artefacts(
    folder: Path,
    original: Translated,
    slim: nn.Module,
    plan: Plan,
    inputs: Inputs,
    note: Mapping[str, str],
) -> Artefacts:
    """Write both networks as ONNX, and the slim one as .pt2, weights and plan; changes no model.

    Args:
        folder: an empty folder, which the caller publishes when all is well.
        original: the network before anything was removed, and the ONNX operator-set version.
        slim: the network that is left of it.
        plan: the indices that were removed, in the original numbering.
        inputs: real ones (images, ...), for the parity with ONNX Runtime.
        note: goes into the ONNX files as slimnet's own metadata.

    Raises:
        InputError: a network cannot be written in one of the forms.
        ProofError: a file is not the network.
    """
    translated = translate(slim, fill_batch(inputs, 2), original.opset)
    original_onnx = write_onnx(original, folder / "original.onnx", note, inputs=inputs)
    slim_onnx = write_onnx(translated, folder / "slim.onnx", note, inputs=inputs)
    slim_program = save_program(translated, folder / "slim.pt2")
    save_weights(slim, folder / "slim.safetensors")
    channels = channels_of(original.model, plan)
    shape = inputs.shape[1:] if isinstance(inputs, Tensor) else None
    save_plan(plan, folder / "plan.json", note.get("source_sha256"), channels, shape)
    digests = {path.name: sha256_of(path) for path in sorted(folder.iterdir())}
    return Artefacts(original_onnx, slim_onnx, slim_program, digests)
