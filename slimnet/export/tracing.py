"""A network traced by torch.export, as every exporter needs it: neutral, quiet, for any batch."""

from __future__ import annotations

import io
import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout, suppress
from typing import Any

import torch
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram
from torch.fx import GraphModule

from slimnet.errors import InputError
from slimnet.execution import removed_layers
from slimnet.export.obstacles import deepest_cause, noted_guards, reason_of
from slimnet.export.simplify import simplified
from slimnet.load import copied
from slimnet.records import Inputs
from slimnet.tasks import forward, input_tensors

BATCH = "batch"
SIZES = {3: ("length",), 4: ("height", "width"), 5: ("depth", "height", "width")}
"""The names of the axes behind the channels, by the number of all axes."""
TRACED_BATCH = 2  # the tracer would write batch sizes 0 and 1 into the program
LOCAL_NOTES = ("stack_trace", "from_node")  # they name source files of this machine


def trace(model: nn.Module, example: Inputs, free_size: bool = False) -> ExportedProgram:
    """Return a copy of the model as a program for any batch size; does not change the model.

    With ``free_size`` it is for any height and width, too. Where layers are removed whole, the
    program is ``simplified``.

    Raises:
        InputError: the network cannot be traced, or is bound to a size that shall be free.
    """
    subject = copy_to_trace(model, example)
    guards: list[str] = []
    try:
        with quiet(), noted_guards() as guards:
            program = torch.export.export(
                subject, neutral_inputs(example), dynamic_shapes=free_axes(example, free_size)
            )
            if removed_layers(subject):
                program = simplified(program)
    except Exception as error:  # torch.export raises many unrelated classes
        reason = reason_of(error, BATCH, guards)
        raise InputError(f"cannot export {type(model).__name__}: {reason}") from error
    if free_size:
        _require_free_size(program, type(model).__name__)
    for module in program.graph_module.modules():
        if isinstance(module, GraphModule):
            for node in module.graph.nodes:
                for note in LOCAL_NOTES:
                    node.meta.pop(note, None)
    return program


def _require_free_size(program: ExportedProgram, network: str) -> None:
    """Refuse a program whose tracing has fixed a size of its input, or made two sizes equal.

    Raises:
        InputError: it has.
    """
    nodes = {node.name: node for node in program.graph.nodes}
    (name,) = program.graph_signature.user_inputs
    sizes = [str(size) for size in nodes[str(name)].meta["val"].shape[2:]]
    fixed = any(size.isdecimal() for size in sizes)
    if fixed or len(set(sizes)) < len(sizes):
        shown = " x ".join(size if size.isdecimal() else "any" for size in sizes)
        raise InputError(
            f"dynamic_size needs a network that takes any size; tracing bound {network} to "
            f"{shown if fixed else 'equal sizes'}, since its forward decides by a size or uses it "
            "as a number; leave it out"
        )


def evaluation_copy(model: nn.Module) -> nn.Module:
    """Return a copy in eval mode on the CPU; does not change the model."""
    return copied(model).eval().cpu()


def copy_to_trace(model: nn.Module, example: Inputs) -> nn.Module:
    """Return a copy as ``evaluation_copy`` that has run on one image; does not change the model.

    A forward may cache what depends on its input's shape, as a detector's head does with its grid.
    It makes that anew where the shape is another one. The tracer's batch is never one image, while
    any other size that the model has seen would become a condition on the batch size.
    """
    copied = evaluation_copy(model)
    one_image = tuple(tensor[:1] for tensor in neutral_inputs(example))
    with torch.no_grad(), suppress(Exception):  # what fails here fails again when it is traced
        forward(copied, one_image)
    return copied


def neutral_inputs(example: Inputs) -> tuple[Tensor, ...]:
    """Return zeros (2, ...) shaped like two images: no user's picture gets into an artefact."""
    return tuple(
        torch.zeros((TRACED_BATCH, *tensor.shape[1:]), dtype=tensor.dtype)
        for tensor in input_tensors(example)
    )


def free_axes(
    example: Inputs, free_size: bool = False, named: bool = False
) -> tuple[dict[int, Any], ...]:
    """Return the inputs' free axes for torch.export: all have the same batch size.

    With ``free_size`` the axes behind the channels are free as well. Tracing finds out what must
    hold of their sizes; once that is done they can be ``named``.
    """
    batch = Dim(BATCH)
    inputs = input_tensors(example)
    if not free_size:
        return tuple({0: batch} for _ in inputs)
    sizes = [enumerate(SIZES.get(tensor.ndim, ()), 2) for tensor in inputs]
    return tuple({0: batch, **{axis: Dim(name) if named else Dim.AUTO for axis, name in each}}
                 for each in sizes)  # fmt: skip


def at_other_size(model: nn.Module, inputs: Inputs) -> Tensor:
    """Return the inputs, tiled to another size that the model runs on; changes nothing.

    The size is such that also a network that halves it five times can run.

    Raises:
        InputError: there are several inputs, or one without a size, or the model does not run.
    """
    if not isinstance(inputs, Tensor) or inputs.ndim not in SIZES:
        shapes = ", ".join(str(tuple(tensor.shape)) for tensor in input_tensors(inputs))
        raise InputError(
            "dynamic_size is for networks of one input (N, C, length), (N, C, height, width) or "
            f"(N, C, depth, height, width); got {shapes}: leave it out"
        )
    subject, failures = evaluation_copy(model), []
    for more, times in ((32, 0), (0, 1)):
        other = inputs.cpu()
        for place, size in enumerate(inputs.shape[2:], 1):
            larger = size + place * (more + times * size)
            other = other.index_select(place + 1, torch.arange(larger) % size)
        try:
            with torch.no_grad(), quiet():
                subject(other)
            return other
        except Exception as error:  # a network's own code may raise anything
            failures.append(f"{tuple(other.shape)}: {deepest_cause(error)}")
    raise InputError(
        f"dynamic_size needs a network that takes any size; {type(model).__name__} takes inputs of "
        f"{tuple(inputs.shape)} but not of {failures[0]}; leave it out"
    )


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
