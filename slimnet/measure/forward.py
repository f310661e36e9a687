"""Calling a network with whatever it takes, and the tensors in whatever it gives."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils import _pytree

from slimnet.records import Inputs

CallBatch = Callable[[int, Callable[[], Tensor]], Tensor]
"""Given the number of a batch and what runs the model on it, runs that and returns its output."""


def call_plainly(_: int, run: Callable[[], Tensor]) -> Tensor:
    """Run it, whichever batch it is."""
    return run()


def forward(model: nn.Module, inputs: Any) -> Any:
    """Return the model's output: a tensor is its one input, a tuple or a mapping are several."""
    if isinstance(inputs, Tensor):
        return model(inputs)
    return model(**inputs) if isinstance(inputs, Mapping) else model(*inputs)


def output_tensors(output: Any) -> tuple[Tensor, ...]:
    """Return the floating-point tensors in an output, dict, list or tuple, in a fixed order."""
    leaves = _pytree.tree_leaves(output)
    return tuple(x for x in leaves if isinstance(x, Tensor) and x.is_floating_point())


def input_tensors(inputs: Inputs) -> tuple[Tensor, ...]:
    """Return the inputs one by one."""
    return (inputs,) if isinstance(inputs, Tensor) else tuple(inputs)


def fill_batch(inputs: Any, images: int) -> Any:
    """Return inputs (images, ...) on the CPU, of the same form: their rows, over and over."""

    def fill(leaf: Tensor) -> Tensor:
        return leaf.detach().cpu()[torch.arange(images) % len(leaf)].contiguous()

    return _pytree.tree_map(fill, inputs)


def in_float64(inputs: Any) -> Any:
    """Return the inputs with every floating-point tensor in float64; they are not changed."""

    def convert(leaf: Any) -> Any:
        floating = isinstance(leaf, Tensor) and leaf.is_floating_point()
        return leaf.to(torch.float64) if floating else leaf

    return _pytree.tree_map(convert, inputs)
