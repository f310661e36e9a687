"""Which groups may be believed in: all at once if they can be, else the guilty ones are found."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from slimnet.groups.group import Group, plan_for
from slimnet.groups.probe import Probe
from slimnet.records import Plan

Guilty = list[tuple[Group, str]]


def only_proven(groups: Sequence[Group], probe: Probe, seed: int) -> tuple[list[Group], Guilty]:
    """Return the groups whose removal is proven right, alone and together, and the others.

    A third of each group's units is removed twice: the first ones, which shifts every place in
    the network, and random ones, which differ from group to group.

    Returns:
        The groups that are right, and every other one with the reason in plain words.
    """
    right, wrong = _without_guilty(groups, probe.objection, seed)
    right, unfit = _without_guilty(right, probe.objection_in_training, seed)
    return right, wrong + unfit


def _without_guilty(
    groups: Sequence[Group], check: Callable[[Plan], str], seed: int
) -> tuple[list[Group], Guilty]:
    """Try all groups at once, then halves, and halves of them, until the guilty stand alone."""
    patterns = _patterns(groups, seed)
    guilty: Guilty = []

    def objection(chosen: Sequence[int]) -> str:
        for units in patterns:
            plan = plan_for([groups[i] for i in chosen], [units[i] for i in chosen])
            if text := check(plan):
                return text
        return ""

    def innocent(chosen: Sequence[int]) -> list[int]:
        if not chosen or not (text := objection(chosen)):
            return list(chosen)
        if len(chosen) == 1:
            guilty.append((groups[chosen[0]], text))
            return []
        half = len(chosen) // 2
        first, second = innocent(chosen[:half]), innocent(chosen[half:])
        return first + alongside(first, second)

    def alongside(right: list[int], others: list[int]) -> list[int]:
        """Return those of the others, right by themselves, that are right beside these too."""
        if not right or not others or not (text := objection(right + others)):
            return others
        if len(others) == 1:
            guilty.append((groups[others[0]], text))
            return []
        half = len(others) // 2
        first = alongside(right, others[:half])
        return first + alongside(right + first, others[half:])

    return [groups[i] for i in innocent(range(len(groups)))], guilty


def _patterns(groups: Sequence[Group], seed: int) -> tuple[list[Tensor], list[Tensor]]:
    generator = torch.Generator().manual_seed(seed)
    first, scattered = [], []
    for group in groups:
        some = max(1, group.units // 3)
        first.append(torch.arange(some))
        scattered.append(torch.randperm(group.units, generator=generator)[:some])
    return first, scattered
