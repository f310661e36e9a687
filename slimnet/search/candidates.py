"""Candidates: what may be removed next, sets of units that the metrics propose, and branches."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from slimnet.groups import Branch, Group
from slimnet.search.widths import AllowedWidths

ANY_WIDTH = AllowedWidths()

MAX_WIDTHS = 8
"""How many widths of a group a round measures, at most. A guess: twice as many take twice as long,
and the next round measures finer ones from where this one ends."""

BRANCH = "branch"
"""Stands for the metric where a whole branch is proposed."""

FINEST_SHARE = 1 / 32
"""A round measures first the width that is this share of the way down through the allowed ones. A
guess. It goes on from there to the last one in equal ratios: both a small and a large step can be
chosen."""


@dataclass(frozen=True, eq=False)
class Proposal:
    """A candidate before it is measured: ``units[i]`` of group i, in the state's numbering."""

    metric: str
    units: tuple[Tensor, ...]

    @property
    def count(self) -> int:
        """How many units would go."""
        return sum(map(len, self.units))


def propose_sets(
    groups: Sequence[Group],
    scores: Mapping[str, Tensor],
    *,
    candidates: int,
    channels: int,
    allowed: AllowedWidths = ANY_WIDTH,
) -> list[Proposal]:
    """Return distinct sets: the metrics take turns, and each adds its next lowest set.

    With ``channels=1`` this is the paper's rule: each metric adds its lowest-ranked channel that
    is not yet chosen (Persand et al. 2020, Algorithm 1). With more, a metric's first set holds its
    lowest channels and its second set the next ones. A metric skips a set that is already there.

    Args:
        groups: the groups as they stand.
        scores: saliency of all units by metric, each (units of all groups,).
        candidates: the maximum number of sets (the oracle's k).
        channels: how many units a set holds.
        allowed: how many units each group may lose. Groups that may lose none are left out.

    Returns:
        No set empties a group. The list is empty when nothing is left to remove.
    """
    sizes = torch.tensor([group.units for group in groups])
    room = torch.tensor([allowed.room(group) for group in groups])
    group_of = torch.repeat_interleave(torch.arange(len(groups)), sizes)
    orders = {m: _sets(score, group_of, room, channels) for m, score in scores.items()}
    chosen: dict[tuple[int, ...], Proposal] = {}
    while orders and len(chosen) < candidates:
        for metric in list(orders):
            fresh = next((s for s in orders[metric] if tuple(s.tolist()) not in chosen), None)
            if fresh is None:
                del orders[metric]
                continue
            chosen[tuple(fresh.tolist())] = Proposal(metric, _by_group(fresh, group_of, sizes))
            if len(chosen) == candidates:
                break
    return list(chosen.values())


def _sets(score: Tensor, group_of: Tensor, room: Tensor, channels: int) -> Iterator[Tensor]:
    """Yield sorted sets of units, lowest saliency first, at most ``room[i]`` of group i in each."""
    order = torch.argsort(score, stable=True)
    open_units = order[room[group_of[order]] > 0]
    for start in range(0, len(open_units), channels):
        window = open_units[start : start + channels]
        keep = torch.ones(len(window), dtype=torch.bool)
        for group in torch.unique(group_of[window]):
            keep[(group_of[window] == group).nonzero()[int(room[group]) :]] = False
        if keep.any():
            yield window[keep].sort().values


def _by_group(units: Tensor, group_of: Tensor, sizes: Tensor) -> tuple[Tensor, ...]:
    """Split sorted units of all groups by group, and number them within it."""
    ends = torch.cumsum(sizes, 0)
    inside = units - (ends - sizes)[group_of[units]]
    return inside.tensor_split(torch.searchsorted(units, ends)[:-1])


def widths_to_measure(counts: Sequence[int]) -> list[int]:
    """Return at most MAX_WIDTHS of these ascending numbers of units, the nearest ones closest."""
    many = len(counts)
    if many <= MAX_WIDTHS:
        return list(counts)
    shares = (FINEST_SHARE ** (1 - place / (MAX_WIDTHS - 1)) for place in range(MAX_WIDTHS))
    places = dict.fromkeys(max(0, round(many * share) - 1) for share in shares)
    return [counts[place] for place in places]


def propose_widths(
    groups: Sequence[Group],
    scores: Mapping[str, Tensor],
    allowed: AllowedWidths,
    candidates: int,
) -> list[list[list[Proposal]]]:
    """Return by group, for widths that it can go down to, the distinct sets of lowest units.

    Args:
        groups: the groups as they stand.
        scores: saliency of all units by metric, each (units of all groups,).
        allowed: the widths that layers may have.
        candidates: the maximum number of sets for one width (the oracle's k).

    Returns:
        For each group a list of widths, widest first, and for each width its sets, each with the
        first metric that proposed it. A group without a lower width has none.
    """
    start, found, widths = 0, [], allowed.widths_now(groups)
    for number, group in enumerate(groups):
        orders = {
            metric: torch.argsort(score[start : start + group.units], stable=True)
            for metric, score in scores.items()
        }
        start += group.units
        levels: dict[int, dict[tuple[int, ...], Proposal]] = {}
        for metric, order in orders.items():
            counts = widths_to_measure(allowed.counts(group, order, widths))
            for level, count in enumerate(counts):
                lowest = order[:count].sort().values
                sets = levels.setdefault(level, {})
                if len(sets) < candidates:
                    units = [torch.empty(0, dtype=torch.int64)] * len(groups)
                    units[number] = lowest
                    sets.setdefault(tuple(lowest.tolist()), Proposal(metric, tuple(units)))
        found.append([list(levels[level].values()) for level in sorted(levels)])
    return found


def propose_branches(groups: Sequence[Group], branches: Sequence[Branch]) -> list[Proposal]:
    """Return each branch as a candidate: all units of its groups."""
    return [Proposal(BRANCH, tuple(branch.units(groups))) for branch in branches]
