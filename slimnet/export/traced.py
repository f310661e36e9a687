"""A network as torch.export sees it: what its ONNX and its .pt2 are made of."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import onnx
import torch
from torch import nn
from torch.export import ExportedProgram
from torch.fx import GraphModule

from slimnet.errors import InputError
from slimnet.export.names import input_names, output_names
from slimnet.export.onnx_proto import translate
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
class Traced:
    """A network, which is not changed, and the program of a copy in eval mode for any batch size.

    Of ``example`` (images, ...) only shapes and types are in the program. ``opset`` is the ONNX
    operator-set version.
    """

    model: nn.Module
    example: Inputs
    opset: int
    program: ExportedProgram

    @cached_property
    def proto(self) -> onnx.ModelProto:
        """The network as ONNX, translated when first asked for; not to be changed.

        One input is called "input" and one output "output"; several are called as in the network's
        forward and in its output.

        Raises:
            InputError: the network or opset cannot be written as ONNX.
            ProofError: what came of it is not valid, or not self-contained.
        """
        names = input_names(self.model, self.example), output_names(self.model, self.example)
        network = type(self.model).__name__
        return translate(self.program, self.example, names, self.opset, network)


def trace(model: nn.Module, example: Inputs, opset: int) -> Traced:
    """Trace a copy of the model; does not change the model.

    What cannot be traced, such as an ``if`` on the data, cannot be written in any form.

    Raises:
        InputError: torch.export cannot trace the network.
    """
    subject = evaluation_copy(model)
    try:
        with quiet():
            program = torch.export.export(
                subject, neutral_inputs(example), dynamic_shapes=batch_shapes(example)
            )
    except Exception as error:  # torch.export raises many unrelated classes
        raise InputError(f"cannot export {type(model).__name__}: {_reason(error)}") from error
    _clear_local_notes(program)
    return Traced(model, example, opset, program)


def _reason(error: Exception) -> str:
    """Return in one line why a network cannot be traced."""
    reason = first_line(error)
    if "data-dependent" in reason:
        return (
            "what its forward does depends on the values in a tensor, such as `if x.mean() > 0`, "
            "and a file holds one way only"
        )
    if f"Constraints violated ({BATCH})" in reason:
        return "it must take any batch size, and its forward works with one only"
    return reason


def _clear_local_notes(program: ExportedProgram) -> None:
    for module in program.graph_module.modules():
        if isinstance(module, GraphModule):
            for node in module.graph.nodes:
                for note in LOCAL_NOTES:
                    node.meta.pop(note, None)
