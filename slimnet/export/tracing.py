"""A network traced by torch.export, as every exporter needs it: neutral, quiet, for any batch."""

from __future__ import annotations

import copy
import io
import logging
import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from typing import Any

import torch
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram
from torch.fx import GraphModule

from slimnet.errors import InputError
from slimnet.execution import removed_layers
from slimnet.export.simplify import simplified
from slimnet.records import Inputs
from slimnet.tasks import input_tensors

BATCH = "batch"
TRACED_BATCH = 2  # the tracer would write batch sizes 0 and 1 into the program
LOCAL_NOTES = ("stack_trace", "from_node")  # they name source files of this machine


def trace(model: nn.Module, example: Inputs) -> ExportedProgram:
    """Return a copy of the model as a program for any batch size; does not change the model.

    Where layers are removed whole, the program is ``simplified``.

    Raises:
        InputError: the network cannot be traced.
    """
    subject = evaluation_copy(model)
    try:
        with quiet():
            program = torch.export.export(
                subject, neutral_inputs(example), dynamic_shapes=batch_shapes(example)
            )
            if removed_layers(subject):
                program = simplified(program)
    except Exception as error:  # torch.export raises many unrelated classes
        raise InputError(f"cannot export {type(model).__name__}: {_reason(error)}") from error
    for module in program.graph_module.modules():
        if isinstance(module, GraphModule):
            for node in module.graph.nodes:
                for note in LOCAL_NOTES:
                    node.meta.pop(note, None)
    return program


def _reason(error: Exception) -> str:
    """Return in one line why a network cannot be traced."""
    reason = deepest_cause(error)
    if "data-dependent" in reason:
        return (
            "its forward depends on the values in a tensor, as `if x.mean() > 0` does, and a file "
            "can hold only one of the branches"
        )
    if f"({BATCH})!" in reason:
        return "it must take any batch size, and its forward does not"
    return reason


def evaluation_copy(model: nn.Module) -> nn.Module:
    """Return a copy in eval mode on the CPU; does not change the model."""
    return copy.deepcopy(model).eval().cpu()


def neutral_inputs(example: Inputs) -> tuple[Tensor, ...]:
    """Return zeros (2, ...) shaped like two images: no user's picture gets into an artefact."""
    return tuple(
        torch.zeros((TRACED_BATCH, *tensor.shape[1:]), dtype=tensor.dtype)
        for tensor in input_tensors(example)
    )


def batch_shapes(example: Inputs) -> tuple[dict[int, Any], ...]:
    """Return the inputs' free axes for torch.export: all have the same batch size."""
    batch = Dim(BATCH)
    return tuple({0: batch} for _ in input_tensors(example))


@contextmanager
def quiet() -> Iterator[None]:
    """Keep Python's prints, warnings and logs from reaching the terminal inside the block."""
    was_disabled = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        with (
            warnings.catch_warnings(),
            redirect_stdout(io.StringIO()),
            redirect_stderr(io.StringIO()),
        ):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(was_disabled)


def deepest_cause(error: BaseException) -> str:
    """Return the first line of the deepest cause that has a message, without colours."""
    line = type(error).__name__
    cause: BaseException | None = error
    while cause is not None:
        text = re.sub(r"\x1b\[[0-9;]*m", "", str(cause)).strip()
        line = text.splitlines()[0] if text else line
        cause = cause.__cause__
    return line
