"""A network as a torch.export program (.pt2): it runs without the class that defined it."""

from __future__ import annotations

import copy
import io
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.export import ExportedProgram
from torch.export.passes import move_to_device_pass

from slimnet.errors import InputError, ProofError
from slimnet.export.onnx_file import Translated
from slimnet.export.parity import compare_outputs
from slimnet.export.plan_file import load_slim
from slimnet.export.tracing import deepest_cause, evaluation_copy, quiet
from slimnet.load import partial_file
from slimnet.records import NetworkFile, Parity
from slimnet.tasks import input_tensors, output_tensors

TOLERANCE = 1e-6  # the program runs the same operators in float32, whose precision is 1e-7


def save_program(translated: Translated, path: Path) -> Parity:
    """Write a translated network as .pt2 for any batch size; changes nothing.

    The file is read back and compared on the example before it gets its name.

    Raises:
        InputError: the file cannot be written.
        ProofError: the file does not run, or is off by more than 1e-6 of the largest output.
    """
    content = _serialise(translated.program, type(translated.model).__name__)
    inputs = input_tensors(translated.example)
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
        raise InputError(f"{path} cannot be opened as .pt2: {deepest_cause(error)}") from error


def _serialise(program: ExportedProgram, name: str) -> bytes:
    buffer = io.BytesIO()
    try:
        with quiet():
            torch.export.save(program, buffer)
    except Exception as error:  # torch.export raises many unrelated classes
        raise InputError(f"cannot export {name} to .pt2: {deepest_cause(error)}") from error
    return buffer.getvalue()


def torch_network(
    network: NetworkFile, model: nn.Module | None, trust_pickle: bool, device: str
) -> nn.Module:
    """Return a network for PyTorch: built from the original ``model``, or else opened as .pt2.

    The model is not changed. A .pt2 is opened on the device.

    Raises:
        InputError: there is neither, or the .pt2 may not be opened.
    """
    if network.folder is None:
        raise InputError(f"PyTorch cannot run {network.name}; give a folder that slimnet wrote")
    if model is not None:
        own = copy.deepcopy(model)
        return own if network.is_original else load_slim(network.folder, own)
    if network.is_original:
        raise InputError(
            f"{network.folder} holds no PyTorch program of the original; name its model file with "
            "--model"
        )
    if not trust_pickle:
        raise InputError(
            f"{network.folder / 'slim.pt2'} can hold code that would run when it is opened: allow "
            "it with --trust-pickle, or name the original's model file with --model instead"
        )
    return load_program(network.folder / "slim.pt2", device)
