"""Select the groups whose removal is proven right: all at once if possible, else by bisection."""

from collections.abc import Callable, Sequence
from itertools import combinations

import torch
from torch import Tensor

from slimnet.groups.group import Group, plan_for
from slimnet.groups.probe import NO_INFLUENCE, ROUNDING, Probe
from slimnet.groups.prove import TOLERANCE
from slimnet.records import Plan

Failing = list[tuple[Group, str]]
# A guess: below 16 units a wrong removal is likely to have a right size by chance.
SMALL_GROUP = 16
SMALL_PATTERNS = 8  # 4 of 8 patterns for each small group: 70 groups differ from each other
CODES = tuple(combinations(range(SMALL_PATTERNS), 4))
EMPTIES_A_LAYER = "each of its channels is the only one that some layer has left"


def provable_groups(
    candidates: Sequence[Group], probe: Probe, seed: int, proven: Sequence[Group] = ()
) -> tuple[list[Group], Failing]:
    """Return the candidates whose removal is proven right, alone and together, and the others.

    Up to half of each group's units are removed twice: first random ones, which show most errors,
    then the leading ones, which shift all positions. The number differs between groups, since a
    removal from several layers may be right only while all lose equally many. Small groups may
    pass by chance, so they also lose their first one, first two, last one and last two units, in
    patterns that differ from group to group. No pattern empties a layer. Groups of low influence
    are also tried alone.

    Args:
        candidates: the groups to prove.
        probe: the network to try them on.
        seed: for the random units.
        proven: groups that were proven before; they are not proven again, but the candidates must
            be right beside them.

    Returns:
        The proven candidates, and each of the others with the reason in plain words.
    """
    entries = [_entries(group) for group in candidates]
    may_go = [len(_not_emptying(each, torch.arange(each.shape[1]), 1)) > 0 for each in entries]
    right = [group for group, may in zip(candidates, may_go, strict=True) if may]
    failing = [(g, EMPTIES_A_LAYER) for g, may in zip(candidates, may_go, strict=True) if not may]

    right, wrong = _without_failing(proven, right, probe.objection, seed)
    right, hidden = _without_hidden(right, probe, seed)
    # one pattern is enough: the first removal shows who reads the channel in training
    right, unfit = _without_failing(proven, right, probe.objection_in_training, seed, patterns=1)
    return right, failing + wrong + hidden + unfit


def _without_hidden(
    groups: Sequence[Group], probe: Probe, seed: int
) -> tuple[list[Group], Failing]:
    """Try the groups of low influence again, each alone: the others would hide their errors."""
    hidden: Failing = []
    for group in probe.low_influence(groups):
        hidden += _without_failing((), [group], probe.objection, seed)[1]
    return [group for group in groups if all(group is not other for other, _ in hidden)], hidden


def _without_failing(
    proven: Sequence[Group],
    candidates: Sequence[Group],
    check: Callable[[Plan, float], str],
    seed: int,
    patterns: int | None = None,
) -> tuple[list[Group], Failing]:
    """Try all groups at once, then halves of the candidates, until each failing one is alone.

    ``check`` returns why a plan is wrong, "" if it is right. ``patterns`` limits the removals.
    """
    if not candidates:
        return [], []
    groups, known = [*proven, *candidates], list(range(len(proven)))
    removals = _patterns(groups, seed)[:patterns]

    def objection(chosen: Sequence[int], tolerance: float) -> str:
        changed = False
        tried: list[Plan] = [{}]  # some patterns are equal for the chosen groups, or empty
        for units in removals:
            plan = plan_for([groups[i] for i in chosen], [units[i] for i in chosen])
            if plan in tried:
                continue
            tried.append(plan)
            text = check(plan, tolerance)
            if text not in ("", NO_INFLUENCE):
                return text
            # units that are dead on these few images prove nothing, but other units may
            changed |= not text
        return "" if changed else NO_INFLUENCE

    right, failing = select_right(known, range(len(known), len(groups)), objection)
    return [groups[i] for i in right], [(groups[i], text) for i, text in failing]


def select_right(
    known: Sequence[int], new: Sequence[int], objection: Callable[[Sequence[int], float], str]
) -> tuple[list[int], list[tuple[int, str]]]:
    """Try all removals at once, then halves of the new ones, until each wrong one is alone.

    Args:
        known: numbers of removals that are right together.
        new: numbers of those to try, together and beside the known ones.
        objection: returns why these removals are wrong together, "" if they are right. It also
            gets the error allowed, as a share of the output's scale.

    Returns:
        The new removals that are right, and each of the others with the reason.
    """
    failing: list[tuple[int, str]] = []

    def bisect(chosen: Sequence[int]) -> list[int]:
        """Return those of the chosen that are right together."""
        # an error of one removal may be small beside the changes that the others make
        tolerance = TOLERANCE if len(chosen) == 1 else ROUNDING
        if not chosen or not (text := objection(chosen, tolerance)):
            return list(chosen)
        if len(chosen) == 1:
            failing.append((chosen[0], text))
            return []
        half = len(chosen) // 2
        first, second = bisect(chosen[:half]), bisect(chosen[half:])
        return first + beside(first, second)

    def beside(right: list[int], others: list[int]) -> list[int]:
        """Return those of the others, right by themselves, that are right beside ``right`` too."""
        if not right or not others or not (text := objection(right + others, TOLERANCE)):
            return others
        if len(others) == 1:
            failing.append((others[0], text))
            return []
        half = len(others) // 2
        first = beside(right, others[:half])
        return first + beside(right + first, others[half:])

    if not known:
        return bisect(new), failing
    if not objection([*known, *new], ROUNDING):
        return list(new), failing
    return beside(list(known), bisect(new)), failing


def _patterns(groups: Sequence[Group], seed: int) -> list[list[Tensor]]:
    """Return for each pattern the units that it removes from each group."""
    generator = torch.Generator().manual_seed(seed)
    patterns: list[list[Tensor]] = [[] for _ in range(2 + SMALL_PATTERNS)]
    for number, group in enumerate(groups):
        entries = _entries(group)
        units, half = torch.arange(group.units), max(1, group.units // 2)
        few = [(units, 1), (units, 2), (units.flip(0), 1), (units.flip(0), 2)]
        counts = torch.randint(max(1, half // 2), half + 1, (2,), generator=generator).tolist()
        shuffled = torch.randperm(group.units, generator=generator)
        # for any two neighbours, some pattern holds one and not the other
        places = CODES[number % len(CODES)] if group.units < SMALL_GROUP else ()
        taken = {0: (shuffled, counts[1]), 1: (units, counts[0])}
        taken |= {2 + place: one for place, one in zip(places, few, strict=False)}
        for place, pattern in enumerate(patterns):
            pattern.append(_not_emptying(entries, *taken.get(place, (units, 0))))
    return patterns


def _entries(group: Group) -> Tensor:
    """Return how many entries of each member go with each unit, (members, units) int64."""
    return torch.stack([torch.bincount(m.unit, minlength=group.units) for m in group.members])


def _not_emptying(entries: Tensor, order: Tensor, count: int) -> Tensor:
    """Return the first ``count`` units of the order, or fewer, that leave no layer empty.

    ``entries`` are as ``_entries`` gives them.
    """
    if not count:
        return order[:0]
    left = entries.sum(1)
    if bool((left > entries[:, order[:count]].sum(1)).all()):
        return order[:count]
    chosen: list[int] = []
    for unit in order.tolist():
        if len(chosen) < count and bool((left > entries[:, unit]).all()):
            left = left - entries[:, unit]
            chosen.append(unit)
    return torch.tensor(chosen, dtype=torch.int64)
