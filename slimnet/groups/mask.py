"""Masking: gates at 0, shapes unchanged. Θ_c is zeroed: producers, norms and consumers' inputs."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import cast

import torch
from torch import Tensor, nn

from slimnet.groups.group import Direction
from slimnet.groups.sides import weight_slices
from slimnet.records import Plan


@torch.no_grad()
def mask(model: nn.Module, plan: Plan) -> None:
    """Change the model in place: zero every weight that the plan would remove."""
    for parameter, dimension, positions in _slices(model, plan):
        parameter.index_fill_(dimension, positions, 0.0)


@contextmanager
def masked(model: nn.Module, plan: Plan) -> Iterator[None]:
    """Change the model for the time of the block only; every weight comes back bit for bit."""
    saved = [(p, d, at, p.detach().index_select(d, at)) for p, d, at in _slices(model, plan)]
    mask(model, plan)
    try:
        yield
    finally:
        with torch.no_grad():
            for parameter, dimension, positions, values in saved:
                parameter.index_copy_(dimension, positions, values)


def _slices(model: nn.Module, plan: Plan) -> Iterator[tuple[Tensor, int, Tensor]]:
    for name, sides in plan.items():
        for side, indices in sides.items():
            module = model.get_submodule(name)
            index = torch.tensor(indices)
            yield from weight_slices(module, cast(Direction, side), index)
