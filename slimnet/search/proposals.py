"""Proposals: metrics propose, each in its own order, which channels might go next."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from slimnet.groups import Group
from slimnet.search.allowed import AllowedWidths

ANY_WIDTH = AllowedWidths()


@dataclass(frozen=True)
class Proposal:
    """A set of units that a metric would remove; ``units[i]`` are those of group i."""

    metric: str
    units: tuple[Tensor, ...]

    @property
    def count(self) -> int:
        """How many units would go."""
        return sum(map(len, self.units))

    @property
    def key(self) -> tuple[tuple[int, ...], ...]:
        """What tells two proposals of one state apart, whoever made them."""
        return tuple(tuple(units.tolist()) for units in self.units)


def propose_sets(
    groups: Sequence[Group],
    scores: Mapping[str, Tensor],
    *,
    candidates: int,
    channels: int,
    allowed: AllowedWidths = ANY_WIDTH,
) -> list[Proposal]:
    """Visit the metrics in turn; each adds its next lowest set, until there are enough.

    With ``channels=1`` this is the paper's rule: each metric adds its lowest-ranked channel that
    is not yet chosen (Persand et al. 2020, Algorithm 1). With more, a metric's first set is its
    lowest channels, its second set the next ones, and a set that is already there is passed over.

    Args:
        groups: the groups as they stand.
        scores: saliency of all units by metric, each (units of all groups,).
        candidates: how many distinct sets to return at most (the oracle's k).
        channels: how many units a set holds.
        allowed: how many units each group may lose; units of one that may lose none stand in no
            set.

    Returns:
        Distinct proposals; none that would empty a group. Empty when nothing is left to remove.
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


def propose_blocks(
    groups: Sequence[Group],
    scores: Mapping[str, Tensor],
    *,
    allowed: AllowedWidths,
    blocks: int,
) -> dict[str, list[Proposal]]:
    """Return, by group, what brings it to a lower width: each metric's lowest channels.

    Args:
        groups: the groups as they stand.
        scores: saliency of all units by metric, each (units of all groups,).
        allowed: the widths to which layers may go.
        blocks: how many such widths to go down at once (as many as there are, at most).

    Returns:
        Distinct proposals, each within one group. A group with no lower allowed width has none.
    """
    start, found = 0, {}
    widths = allowed.widths_now(groups)
    for number, group in enumerate(groups):
        distinct: dict[tuple[int, ...], Proposal] = {}
        own = [score[start : start + group.units] for score in scores.values()]
        orders = [torch.argsort(score, stable=True) for score in own]
        many = allowed.units_to_go(group, orders, widths, blocks)
        for metric, order, gone in zip(scores, orders, many, strict=True):
            if gone == 0:
                continue
            lowest = order[:gone].sort().values
            units = [torch.empty(0, dtype=torch.int64)] * len(groups)
            units[number] = lowest
            distinct.setdefault(tuple(lowest.tolist()), Proposal(metric, tuple(units)))
        if distinct:
            found[group.name] = list(distinct.values())
        start += group.units
    return found


def _sets(score: Tensor, group_of: Tensor, room: Tensor, channels: int) -> Iterator[Tensor]:
    """Yield sorted sets of units, lowest saliency first, at most ``room[i]`` of group i in each."""
    order = torch.argsort(score, stable=True)
    open_units = order[room[group_of[order]] > 0]
    for start in range(0, len(open_units), channels):
        window = open_units[start : start + channels]
        if channels == 1:
            yield window  # always within the room of its group
            continue
        keep = torch.ones(len(window), dtype=torch.bool)
        for group in torch.unique(group_of[window]):
            keep[(group_of[window] == group).nonzero()[int(room[group]) :]] = False
        if keep.any():
            yield window[keep].sort().values


def _by_group(units: Tensor, group_of: Tensor, sizes: Tensor) -> tuple[Tensor, ...]:
    """Return sorted units of all groups by the group that they are of, and their numbers in it."""
    ends = torch.cumsum(sizes, 0)
    inside = units - (ends - sizes)[group_of[units]]
    return inside.tensor_split(torch.searchsorted(units, ends)[:-1])
