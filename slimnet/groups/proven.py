"""Which groups may be believed in: all at once if they can be, else the guilty ones are found."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from slimnet.groups.group import Group, plan_for
from slimnet.groups.probe import Probe
from slimnet.records import Plan

Guilty = list[tuple[Group, str]]
SMALL = 32  # units
STUCK = "none of its channels can go without leaving some layer with none at all"


def only_proven(groups: Sequence[Group], probe: Probe, seed: int) -> tuple[list[Group], Guilty]:
    """Return the groups whose removal is proven right, alone and together, and the others.

    A third of each group's units is removed twice: the first ones, which shifts every place in
    the network, and random ones, which differ from group to group; of small groups, where one
    unit more or less may be right by chance, also the last ones. No layer is emptied.

    Returns:
        The groups that are right, and every other one with the reason in plain words.
    """
    movable = [group for group in groups if len(_not_emptying(group, torch.arange(group.units), 1))]
    stuck = [(group, STUCK) for group in groups if all(group is not other for other in movable)]
    right, wrong = _without_guilty(movable, probe.objection, seed)
    right, unfit = _without_guilty(right, probe.objection_in_training, seed)
    return right, stuck + wrong + unfit


def _without_guilty(
    groups: Sequence[Group], check: Callable[[Plan], str], seed: int
) -> tuple[list[Group], Guilty]:
    """Try all groups at once, then halves, and halves of them, until the guilty stand alone."""
    patterns = _patterns(groups, seed)
    guilty: Guilty = []

    def objection(chosen: Sequence[int]) -> str:
        for units in patterns:
            plan = plan_for([groups[i] for i in chosen], [units[i] for i in chosen])
            if plan and (text := check(plan)):  # not all patterns take from every group
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


def _patterns(groups: Sequence[Group], seed: int) -> list[list[Tensor]]:
    """Return for each pattern the units that go from each group."""
    generator = torch.Generator().manual_seed(seed)
    first, scattered, last = [], [], []
    for group in groups:
        some, units = max(1, group.units // 3), torch.arange(group.units)
        first.append(_not_emptying(group, units, some))
        order = torch.randperm(group.units, generator=generator)
        scattered.append(_not_emptying(group, order, some))
        last.append(_not_emptying(group, units.flip(0), some if group.units < SMALL else 0))
    return [first, scattered, last]


def _not_emptying(group: Group, order: Tensor, some: int) -> Tensor:
    """Return the first units of the order, ``some`` at most, that leave no layer without any."""
    entries = torch.stack([torch.bincount(m.unit, minlength=group.units) for m in group.members])
    left = entries.sum(1)
    if bool((left > entries[:, order[:some]].sum(1)).all()):
        return order[:some]
    chosen: list[int] = []
    for unit in order.tolist():
        if len(chosen) < some and bool((left > entries[:, unit]).all()):
            left = left - entries[:, unit]
            chosen.append(unit)
    return torch.tensor(chosen, dtype=torch.int64)
