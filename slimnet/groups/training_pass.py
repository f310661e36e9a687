"""Whether a network can be trained: parts may run only then."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from slimnet.load import on_shapes
from slimnet.measure import forward, output_tensors


def training_error(
    model: nn.Module, inputs: Any, cut: Callable[[nn.Module], nn.Module] = lambda model: model
) -> Exception | None:
    """Return what running a copy forward and backward in train mode raises, after ``cut``."""
    try:
        on_shapes(_train_once, model, inputs, cut)
    except Exception as error:
        return error
    return None


def _train_once(model: nn.Module, inputs: Any) -> None:
    """Change the model: run it forward and backward in train mode."""
    small = [p for p in model.train().parameters() if p.ndim < 2]
    for parameter in model.parameters():
        # biases and norms need all of the way back, at a fraction of the memory
        parameter.requires_grad_(parameter.ndim < 2 or not small)
    with torch.enable_grad(), torch.random.fork_rng(devices=[]):
        outputs = output_tensors(forward(model, inputs))
        torch.autograd.backward([part.sum() for part in outputs])
