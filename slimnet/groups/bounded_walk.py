"""Torch-pruning's walk over its dependency graph, with a bound on the steps that it takes."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from types import FunctionType
from typing import Any

import torch_pruning
from torch_pruning.dependency import graph as graph_of_torch_pruning


class EndlessWalkError(Exception):
    """The walk took more steps than any right one takes."""


class _BoundedGroup(graph_of_torch_pruning.Group):  # type: ignore[misc]  # it has no types
    """A group that refuses to grow beyond its bounds, in modules and in channels of one module."""

    def __init__(self, most_modules: int, most_channels: int) -> None:
        super().__init__()
        self._most_modules, self._most_channels = most_modules, most_channels

    def add_dep(self, dep: Any, idxs: Any) -> None:
        if len(self) >= self._most_modules or len(idxs) > self._most_channels:
            raise EndlessWalkError
        super().add_dep(dep, idxs)


def bounded_walk(
    most_modules: int, most_channels: int
) -> Callable[..., torch_pruning.dependency.Group]:
    """Return torch-pruning's ``get_pruning_group`` with bounds; it takes the graph first.

    Counted, not timed: what is found must not depend on how busy the machine is. The walk along
    the residual stream of a Swin multiplies its channels without end, that of a MaxViT its steps.

    Raises:
        EndlessWalkError: by the returned function, where the walk leaves its bounds.
    """
    walk = graph_of_torch_pruning.DependencyGraph.get_pruning_group
    # the same code with another Group in its globals; torch-pruning itself stays as it is
    names = {**walk.__globals__, "Group": partial(_BoundedGroup, most_modules, most_channels)}
    return FunctionType(walk.__code__, names, walk.__name__, walk.__defaults__, walk.__closure__)
