"""A network as a torch.export program (.pt2): it runs without the class that defined it."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.export import ExportedProgram
from torch.export.passes import move_to_device_pass
from torch.fx import GraphModule

from slimnet.errors import InputError, ProofError
from slimnet.export.parity import compare_outputs
from slimnet.export.partial import partial_file
from slimnet.export.tracing import (
    batch_shapes,
    evaluation_copy,
    first_line,
    neutral_inputs,
    quiet,
)
from slimnet.measure import input_tensors, output_tensors
from slimnet.records import Inputs, Parity

TOLERANCE = 1e-6
LOCAL_NOTES = ("stack_trace", "from_node")  # they name source files of this machine


def save_program(model: nn.Module, example: Inputs, path: Path) -> Parity:
    """Write a copy of the model as .pt2 for any batch size; does not change the model.

    The file is read back and compared on ``example`` (images, ...) before it gets its name.

    Raises:
        InputError: torch.export cannot trace the network, or the file cannot be written.
        ProofError: what was read back is not the network, to 1e-6 of its largest output.
    """
    subject = evaluation_copy(model)
    content = _serialise(subject, example)
    inputs = input_tensors(example)
    with torch.no_grad():
        expected = output_tensors(subject(*inputs))
        try:
            with quiet():
                program = torch.export.load(io.BytesIO(content)).module()
                actual = output_tensors(program(*inputs))
        except Exception as error:
            raise ProofError(f"the .pt2 program does not run: {first_line(error)}") from error
    parity = compare_outputs(expected, actual, TOLERANCE, "the .pt2 program")
    with partial_file(path) as temporary:
        temporary.write_bytes(content)
    return parity


class Program(nn.Module):
    """A .pt2 file as a network; it knows one mode only, so that train and eval change nothing."""

    def __init__(self, program: ExportedProgram) -> None:
        super().__init__()
        self.program = program.module()

    def train(self, mode: bool = True) -> Program:
        """Return the network as it is."""
        return self

    def forward(self, *inputs: Any) -> Any:
        """Return what the program gives."""
        return self.program(*inputs)


def load_program(path: Path, device: str = "cpu") -> nn.Module:
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
        raise InputError(f"{path} cannot be opened as .pt2: {first_line(error)}") from error


def require_exportable(model: nn.Module, example: Inputs) -> None:
    """Refuse early what could not be written in the end, such as an ``if`` on the data.

    The model is not changed.

    Raises:
        InputError: torch.export cannot trace the network.
    """
    _traced(evaluation_copy(model), example)


def _traced(subject: nn.Module, example: Inputs) -> ExportedProgram:
    try:
        with quiet():
            return torch.export.export(
                subject, neutral_inputs(example), dynamic_shapes=batch_shapes(example)
            )
    except Exception as error:  # torch.export raises many unrelated classes
        name, reason = type(subject).__name__, first_line(error)
        if "data-dependent" in reason:
            reason = (
                "what its forward does depends on the values in a tensor, such as "
                "`if x.mean() > 0`, and a file holds one way only"
            )
        raise InputError(f"cannot export {name}: {reason}") from error


def _serialise(subject: nn.Module, example: Inputs) -> bytes:
    buffer = io.BytesIO()
    program = _traced(subject, example)
    try:
        with quiet():
            _clear_local_notes(program)
            torch.export.save(program, buffer)
    except Exception as error:  # as above
        name = type(subject).__name__
        raise InputError(f"cannot export {name} to .pt2: {first_line(error)}") from error
    return buffer.getvalue()


def _clear_local_notes(program: ExportedProgram) -> None:
    for module in program.graph_module.modules():
        if isinstance(module, GraphModule):
            for node in module.graph.nodes:
                for note in LOCAL_NOTES:
                    node.meta.pop(note, None)
