"""What every exporter needs: a copy to trace, a neutral input, silence, and one line on failure."""

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
from torch.export import Dim

from slimnet.measure import input_tensors
from slimnet.records import Inputs

BATCH = "batch"
TRACED_BATCH = 2  # 0 and 1 are special to the tracer: they would be burnt in


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
    """Return what torch.export must know of the inputs' shapes: all have the same batch size."""
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


def first_line(error: BaseException) -> str:
    """Return the first line of the deepest cause, without colours: what went wrong, not where."""
    line = type(error).__name__
    cause: BaseException | None = error
    while cause is not None:
        text = re.sub(r"\x1b\[[0-9;]*m", "", str(cause)).strip()
        line = text.splitlines()[0] if text else line
        cause = cause.__cause__
    return line
