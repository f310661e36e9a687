"""Which groups may be believed in: all at once if they can be, else the guilty ones are found."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import combinations

import torch
from torch import Tensor

from slimnet.groups.group import Group, plan_for
from slimnet.groups.probe import ROUNDING, UNSEEN, Probe
from slimnet.groups.proof import TOLERANCE
from slimnet.records import Plan

Guilty = list[tuple[Group, str]]
SMALL = 16  # units
SMALL_PATTERNS = 8
CODES = tuple(combinations(range(SMALL_PATTERNS), 4))
STUCK = "none of its channels can go without leaving some layer with none at all"


def only_proven(groups: Sequence[Group], probe: Probe, seed: int) -> tuple[list[Group], Guilty]:
    """Return the groups whose removal is proven right, alone and together, and the others.

    Up to half of each group's units are removed twice: the first ones, which shifts every place
    in the network, and random ones. How many differs from group to group, since what is taken
    from several may be right only where it is equally much. Small groups, where a number may be
    right by chance, also lose their first one, first two, last one and last two units, and are
    tried without one another. No layer is emptied. Those on which the output hardly depends are
    tried alone.

    Returns:
        The groups that are right, and every other one with the reason in plain words.
    """
    entries = [_entries(group) for group in groups]
    may_go = [len(_not_emptying(each, torch.arange(each.shape[1]), 1)) > 0 for each in entries]
    movable = [group for group, may in zip(groups, may_go, strict=True) if may]
    stuck = [(group, STUCK) for group, may in zip(groups, may_go, strict=True) if not may]
    right, wrong = _without_guilty(movable, probe.objection, _patterns(movable, seed))
    right, hidden = _without_hidden(right, probe, seed)
    # who reads a channel in training is told by the first removal, whatever its size
    patterns = _patterns(right, seed)[:1]
    right, unfit = _without_guilty(
        right, lambda plan, _: probe.objection_in_training(plan), patterns
    )
    return right, stuck + wrong + hidden + unfit


def _without_hidden(groups: Sequence[Group], probe: Probe, seed: int) -> tuple[list[Group], Guilty]:
    """Try those alone again on which the output hardly depends."""
    hidden: Guilty = []
    for group in probe.faint(groups):
        hidden += _without_guilty([group], probe.objection, _patterns([group], seed))[1]
    return [group for group in groups if all(group is not other for other, _ in hidden)], hidden


def _without_guilty(
    groups: Sequence[Group],
    check: Callable[[Plan, float], str],
    patterns: Sequence[Sequence[Tensor]],
) -> tuple[list[Group], Guilty]:
    """Try all groups at once, then halves, and halves of them, until the guilty stand alone."""
    guilty: Guilty = []

    def objection(chosen: Sequence[int], tolerance: float = TOLERANCE) -> str:
        seen = False
        tried: list[Plan] = [{}]  # not all patterns take from every group, or as much as another
        for units in patterns:
            plan = plan_for([groups[i] for i in chosen], [units[i] for i in chosen])
            if plan in tried:
                continue
            tried.append(plan)
            text = check(plan, tolerance)
            if text not in ("", UNSEEN):
                return text
            # units that these few images leave dead prove nothing, but others may
            seen |= not text
        return "" if seen else UNSEEN

    def innocent(chosen: Sequence[int]) -> list[int]:
        # what is wrong with one may be small beside what the others change
        tolerance = TOLERANCE if len(chosen) == 1 else ROUNDING
        if not chosen or not (text := objection(chosen, tolerance)):
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
    patterns: list[list[Tensor]] = [[] for _ in range(2 + SMALL_PATTERNS)]
    for number, group in enumerate(groups):
        entries = _entries(group)
        units, half = torch.arange(group.units), max(1, group.units // 2)
        few = [(units, 1), (units, 2), (units.flip(0), 1), (units.flip(0), 2)]
        some = torch.randint(max(1, half // 2), half + 1, (2,), generator=generator).tolist()
        shuffled = torch.randperm(group.units, generator=generator)
        # of any two neighbours each is in a pattern without the other
        places = CODES[number % len(CODES)] if group.units < SMALL else ()
        taken = {0: (units, some[0]), 1: (shuffled, some[1])}
        taken |= {2 + place: one for place, one in zip(places, few, strict=False)}
        for place, pattern in enumerate(patterns):
            pattern.append(_not_emptying(entries, *taken.get(place, (units, 0))))
    return patterns


def _entries(group: Group) -> Tensor:
    """Return how many entries of each member go with each unit, (members, units) int64."""
    return torch.stack([torch.bincount(m.unit, minlength=group.units) for m in group.members])


def _not_emptying(entries: Tensor, order: Tensor, some: int) -> Tensor:
    """Return the first units of the order, ``some`` at most, that leave no layer without any.

    ``entries`` are as ``_entries`` gives them.
    """
    if not some:
        return order[:0]
    left = entries.sum(1)
    if bool((left > entries[:, order[:some]].sum(1)).all()):
        return order[:some]
    chosen: list[int] = []
    for unit in order.tolist():
        if len(chosen) < some and bool((left > entries[:, unit]).all()):
            left = left - entries[:, unit]
            chosen.append(unit)
    return torch.tensor(chosen, dtype=torch.int64)
