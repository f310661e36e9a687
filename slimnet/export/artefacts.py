"""All files that a deployment needs, written to one folder and proven there; and the .pt2 itself.

A .pt2 is a torch.export program: it runs without the class that defined the network.
"""

from __future__ import annotations

import io
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.export import ExportedProgram
from torch.export.passes import move_to_device_pass

from slimnet.errors import InputError, ProofError
from slimnet.export.obstacles import deepest_cause
from slimnet.export.onnx_file import Translated, compare_outputs, translate, write_onnx
from slimnet.export.plan_file import plan_sha256, save_plan, save_weights
from slimnet.export.tracing import at_other_size, evaluation_copy, quiet
from slimnet.groups import channels_of
from slimnet.load import partial_file, sha256_of
from slimnet.records import Artefacts, Inputs, Parity, Plan
from slimnet.tasks import fill_batch, input_tensors, output_tensors

TOLERANCE = 1e-6  # the program runs the same operators in float32, whose precision is 1e-7


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
    translated = translate(slim, fill_batch(inputs, 2), original.opset, original.free_size)
    original_onnx = write_onnx(original, folder / "original.onnx", note, inputs=inputs)
    slim_onnx = write_onnx(translated, folder / "slim.onnx", note, inputs=inputs)
    slim_program = save_program(translated, folder / "slim.pt2")
    save_weights(slim, folder / "slim.safetensors")
    channels = channels_of(original.model, plan)
    shape = inputs.shape[1:] if isinstance(inputs, Tensor) else None
    save_plan(plan, folder / "plan.json", note.get("source_sha256"), channels, shape)
    digests = {path.name: sha256_of(path) for path in sorted(folder.iterdir())}
    return Artefacts(original_onnx, slim_onnx, slim_program, digests)


def save_program(translated: Translated, path: Path) -> Parity:
    """Write a translated network as .pt2 for any batch size; changes nothing.

    The file is read back and compared on the example before it gets its name. One for any height
    and width is compared on another size instead.

    Raises:
        InputError: the file cannot be written.
        ProofError: the file does not run, or is off by more than 1e-6 of the largest output.
    """
    content = _serialise(translated.program, type(translated.model).__name__)
    inputs = input_tensors(translated.example)
    if translated.free_size:
        inputs = (at_other_size(translated.model, translated.example),)
    with torch.no_grad():
        reference = output_tensors(evaluation_copy(translated.model)(*inputs))
        try:
            with quiet():
                program = torch.export.load(io.BytesIO(content)).module()
                outputs = output_tensors(program(*inputs))
        except Exception as error:
            raise ProofError(f"the .pt2 program does not run: {deepest_cause(error)}") from error
    parity = compare_outputs(reference, outputs, TOLERANCE, "the .pt2 program")
    with partial_file(path) as temporary:
        temporary.write_bytes(content)
    return parity


class Program(nn.Module):
    """A .pt2 file as a network. It has one mode only: train and eval change nothing."""

    def __init__(self, program: ExportedProgram) -> None:
        super().__init__()
        self.program = program.module()

    def train(self, mode: bool = True) -> Program:
        """Return the network as it is."""
        return self

    def forward(self, *inputs: Any) -> Any:
        """Return the program's outputs."""
        return self.program(*inputs)


def load_program(path: Path, device: str) -> nn.Module:
    """Open a .pt2 file on a device. This can run code that a forged file holds.

    Raises:
        InputError: it cannot be opened.
    """
    try:
        with quiet():
            program = torch.export.load(path)
            if device != "cpu":
                program = move_to_device_pass(program, device)
            return Program(program)
    except Exception as error:
        raise InputError(f"{path} cannot be opened as .pt2: {deepest_cause(error)}") from error


def _serialise(program: ExportedProgram, name: str) -> bytes:
    buffer = io.BytesIO()
    try:
        with quiet():
            torch.export.save(program, buffer)
    except Exception as error:  # torch.export raises many unrelated classes
        raise InputError(f"cannot export {name} to .pt2: {deepest_cause(error)}") from error
    return buffer.getvalue()
