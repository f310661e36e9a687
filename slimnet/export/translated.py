"""A network as torch.export and ONNX know it: what its files are made of."""

from __future__ import annotations

from dataclasses import dataclass

import onnx
import torch
from torch import nn
from torch.export import ExportedProgram
from torch.fx import GraphModule

from slimnet.errors import InputError
from slimnet.export.onnx_proto import to_onnx
from slimnet.export.tracing import (
    BATCH,
    batch_shapes,
    evaluation_copy,
    first_line,
    neutral_inputs,
    quiet,
)
from slimnet.records import Inputs

LOCAL_NOTES = ("stack_trace", "from_node")  # they name source files of this machine


@dataclass(frozen=True)
class Translated:
    """A network, and what a copy of it in eval mode is in the two forms that are written.

    Of ``example`` (images, ...) only shapes and types are in the program and in the ONNX, which
    take any batch size. One input of the ONNX is called "input" and one output "output"; several
    are called as in the network's forward and in its output. Nothing here is to be changed.
    """

    model: nn.Module
    example: Inputs
    opset: int
    program: ExportedProgram
    proto: onnx.ModelProto


def translate(model: nn.Module, example: Inputs, opset: int) -> Translated:
    """Translate a copy of the model; does not change the model.

    What cannot be traced, such as an ``if`` on the data, cannot be written in any form.

    Args:
        model: the network.
        example: inputs (images, ...).
        opset: ONNX operator-set version.

    Raises:
        InputError: the network cannot be traced, or not be written as ONNX or with this opset.
        ProofError: the ONNX is not valid, or not self-contained.
    """
    program = _traced(model, example)
    proto = to_onnx(program, model, example, opset)
    return Translated(model, example, opset, program, proto)


def _traced(model: nn.Module, example: Inputs) -> ExportedProgram:
    subject = evaluation_copy(model)
    try:
        with quiet():
            program = torch.export.export(
                subject, neutral_inputs(example), dynamic_shapes=batch_shapes(example)
            )
    except Exception as error:  # torch.export raises many unrelated classes
        raise InputError(f"cannot export {type(model).__name__}: {_reason(error)}") from error
    _clear_local_notes(program)
    return program


def _reason(error: Exception) -> str:
    """Return in one line why a network cannot be traced."""
    reason = first_line(error)
    if "data-dependent" in reason:
        return (
            "what its forward does depends on the values in a tensor, such as `if x.mean() > 0`, "
            "and a file holds one way only"
        )
    if f"({BATCH})!" in reason:
        return "it must take any batch size, and its forward does not"
    return reason


def _clear_local_notes(program: ExportedProgram) -> None:
    for module in program.graph_module.modules():
        if isinstance(module, GraphModule):
            for node in module.graph.nodes:
                for note in LOCAL_NOTES:
                    node.meta.pop(note, None)
