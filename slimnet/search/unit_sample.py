"""Which units the full oracle measures where it would take too long to measure all of them."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from slimnet.groups import Group


def sample_units(groups: Sequence[Group], sample: int | None, seed: int) -> list[Tensor]:
    """Return the units of each group to measure, sorted int64; all of them without ``sample``.

    They are drawn at random, evenly: every unit has the same chance, and every group gets its
    share, rounded up or down (systematic sampling).
    """
    units = [group.units for group in groups]
    total = sum(units)
    if sample is None or sample >= total:
        return [torch.arange(many) for many in units]
    generator = torch.Generator().manual_seed(seed)
    shuffled = [torch.randperm(many, generator=generator) for many in units]
    start = float(torch.rand(1, generator=generator))
    chosen = torch.zeros(total, dtype=torch.bool)
    chosen[((torch.arange(sample, dtype=torch.float64) + start) * (total / sample)).long()] = True
    parts = torch.split(chosen, units)
    return [order[part].sort().values for order, part in zip(shuffled, parts, strict=True)]


def places_among_all(groups: Sequence[Group], units: Sequence[Tensor]) -> Tensor:
    """Return where these units stand among all units, group by group, int64."""
    starts = torch.tensor([0, *(group.units for group in groups)]).cumsum(0)[:-1]
    return torch.cat([chosen + start for chosen, start in zip(units, starts, strict=True)])


def places_by_group(groups: Sequence[Group], units: Sequence[Tensor]) -> dict[str, Tensor]:
    """Return where the units of each group stand among these units; groups without any lack."""
    parts = torch.split(torch.arange(sum(map(len, units))), [len(chosen) for chosen in units])
    return {group.name: own for group, own in zip(groups, parts, strict=True) if len(own)}
