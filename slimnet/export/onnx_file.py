"""A network as an ONNX file: translated, written, run, and proven to be that network."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import onnx
import torch
from torch import nn
from torch.export import ExportedProgram

from slimnet.errors import ProofError
from slimnet.export.obstacles import deepest_cause
from slimnet.export.to_onnx import to_onnx
from slimnet.export.tracing import at_other_size, evaluation_copy, trace
from slimnet.load import partial_file
from slimnet.records import Inputs, OnnxFile, Parity
from slimnet.tasks import fill_batch, forward, input_tensors, output_tensors
from slimnet.timing import TOLERANCE, OnnxNetwork, compare_outputs


@dataclass(frozen=True)
class Translated:
    """A network, and a copy of it in eval mode in the two forms that are written.

    ``program`` and ``proto`` take any batch size; of ``example`` (images, ...) they hold only
    shapes and types. A single input of the ONNX is called "input" and an only output "output".
    Several are called as in the network's forward and in its output. Change nothing in here.
    With ``free_size`` both take any height and width, too.
    """

    model: nn.Module
    example: Inputs
    opset: int
    program: ExportedProgram
    proto: onnx.ModelProto
    free_size: bool = False


def translate(model: nn.Module, example: Inputs, opset: int, free_size: bool = False) -> Translated:
    """Translate a copy of the model; does not change the model.

    A network that cannot be traced, because of an ``if`` on the data say, raises an InputError.

    Args:
        model: the network.
        example: inputs (images, ...).
        opset: ONNX operator-set version.
        free_size: translate it for any height and width.

    Raises:
        InputError: the network cannot be traced, or not be written as ONNX or with this opset, or
            not for any size.
        ProofError: the ONNX is not valid, or not self-contained.
    """
    if free_size:
        at_other_size(model, fill_batch(example, 2))
    program = trace(model, example, free_size)
    proto = to_onnx(program, model, example, opset, free_size)
    return Translated(model, example, opset, program, proto, free_size)


def write_onnx(
    translated: Translated,
    path: Path,
    metadata: Mapping[str, str],
    check_batches: Iterable[int] = (1, 3),
    inputs: Inputs | None = None,
) -> OnnxFile:
    """Write a translated network as one ONNX file and prove it; changes nothing.

    The same network and metadata give the same bytes. On failure no file is left behind. A file
    for any size is compared at two.

    Args:
        translated: the network.
        path: where the file goes.
        metadata: added to the file; it must hold no local path.
        check_batches: batch sizes at which ONNX Runtime is compared with PyTorch.
        inputs: real ones (images, ...) to compare on; None takes the example.

    Raises:
        InputError: the file cannot be written.
        ProofError: ONNX Runtime cannot run the file, or it is not the network.
    """
    proto = onnx.ModelProto()
    proto.CopyFrom(translated.proto)
    onnx.helper.set_model_props(proto, dict(sorted(metadata.items())))
    content = proto.SerializeToString(deterministic=True)
    images = translated.example if inputs is None else inputs
    with partial_file(path) as temporary:
        temporary.write_bytes(content)
        parity = {
            size: onnx_parity(translated.model, temporary, fill_batch(images, size))
            for size in check_batches
        }
        sizes = {}
        if translated.free_size:
            other = at_other_size(translated.model, fill_batch(images, 2))
            size = ",".join(map(str, other.shape[2:]))
            sizes[size] = onnx_parity(translated.model, temporary, other)
    digest = hashlib.sha256(content).hexdigest()
    opset = translated.opset
    return OnnxFile(path, len(content), digest, opset, parity, sizes)


def onnx_parity(model: nn.Module, path: Path, inputs: Inputs) -> Parity:
    """Run the ONNX file on ONNX Runtime's CPU and compare; does not change the model.

    Args:
        model: the network that the file should be.
        path: the ONNX file.
        inputs: preprocessed images (images, ...), for each input of the network.

    Raises:
        ProofError: the file does not run, or an output is off by more than 1e-4 of its largest
            value.
    """
    with torch.no_grad():
        reference = output_tensors(forward(evaluation_copy(model), inputs))
    try:
        outputs = output_tensors(OnnxNetwork(path).run(input_tensors(inputs)))
    except ProofError:
        raise
    except Exception as error:  # onnxruntime raises many unrelated classes
        reason = deepest_cause(error)
        raise ProofError(f"ONNX Runtime cannot run {path.name}: {reason}") from error
    return compare_outputs(reference, outputs, TOLERANCE, "ONNX Runtime")
