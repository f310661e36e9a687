"""A network as a torch.export program (.pt2): it runs without the class that defined it."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.export import ExportedProgram
from torch.export.passes import move_to_device_pass

from slimnet.errors import InputError, ProofError
from slimnet.export.parity import compare_outputs
from slimnet.export.partial import partial_file
from slimnet.export.tracing import evaluation_copy, first_line, quiet
from slimnet.export.translated import Translated
from slimnet.measure import input_tensors, output_tensors
from slimnet.records import Parity

TOLERANCE = 1e-6


def save_program(translated: Translated, path: Path) -> Parity:
    """Write a translated network as .pt2 for any batch size; changes nothing.

    The file is read back and compared on the example before it gets its name.

    Raises:
        InputError: the file cannot be written.
        ProofError: what was read back is not the network, to 1e-6 of its largest output.
    """
    content = _serialise(translated.program, type(translated.model).__name__)
    inputs = input_tensors(translated.example)
    with torch.no_grad():
        expected = output_tensors(evaluation_copy(translated.model)(*inputs))
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


def _serialise(program: ExportedProgram, name: str) -> bytes:
    buffer = io.BytesIO()
    try:
        with quiet():
            torch.export.save(program, buffer)
    except Exception as error:  # torch.export raises many unrelated classes
        raise InputError(f"cannot export {name} to .pt2: {first_line(error)}") from error
    return buffer.getvalue()
