"""Candidates: the sets or blocks of units that the metrics propose to remove next."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from slimnet.groups import Group
from slimnet.search.widths import AllowedWidths

ANY_WIDTH = AllowedWidths()

FIRST_STEP_SHARE = 0.04
"""A first set holds this share of all units. A guess: sets that break the budget are halved, so
that twice as much costs one more step, and half of it makes the search up to twice as long."""

STEPS_TO_CROSS = 4
MAX_BLOCKS = 4
"""The first blocks take the widest group down to nothing in STEPS_TO_CROSS steps, but go down at
most MAX_BLOCKS widths at once. Both are guesses; blocks that break the budget are halved."""


@dataclass(frozen=True)
class Proposal:
    """A candidate before it is measured: ``units[i]`` of group i, in the state's numbering."""

    metric: str
    units: tuple[Tensor, ...]

    @property
    def count(self) -> int:
        """How many units would go."""
        return sum(map(len, self.units))

    @property
    def key(self) -> tuple[tuple[int, ...], ...]:
        """The units alone: two metrics may propose the same ones."""
        return tuple(tuple(units.tolist()) for units in self.units)


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


class Proposer:
    """Proposes the candidates of each step, smaller ones where the budget is broken.

    ``nothing_left`` says why nothing is proposed any more, and ``by_group`` whether every candidate
    is of one group. Groups are added until ``candidates`` are proposed; new groups always are.
    """

    by_group: bool

    def __init__(self, candidates: int, allowed: AllowedWidths, nothing_left: str) -> None:
        self.candidates, self.allowed, self.nothing_left = candidates, allowed, nothing_left

    @property
    def can_shrink(self) -> bool:
        """Whether a step that breaks the budget is taken back, and something smaller tried."""
        raise NotImplementedError

    def propose(self, groups: Sequence[Group], scores: Mapping[str, Tensor]) -> list[Proposal]:
        """Return what the oracle should measure; empty when there is nothing left to try."""
        raise NotImplementedError

    def learn(
        self, groups: Sequence[Group], proposals: Sequence[Proposal], costs: Sequence[float]
    ) -> None:
        """Use the costs per saving of the candidates of a step; by default they do not matter."""

    def shrink_step(self, groups: Sequence[Group], proposal: Proposal) -> None:
        """Propose smaller candidates, since this one broke the budget; needs ``can_shrink``."""

    def grow_step(self) -> None:
        """Propose larger candidates again, since one was within the budget; by default not."""

    def reopen(self) -> None:
        """Propose what broke the budget once more, since there is more room in it."""


class SetProposer(Proposer):
    """Sets over all groups: halved, down to one unit, where one breaks the budget.

    They grow again where one is within it. Accuracy on a finite split is noisy, and a size that
    broke the budget once may not break it again.
    """

    by_group = False

    def __init__(
        self,
        groups: Sequence[Group],
        candidates: int,
        step: int | None,
        allowed: AllowedWidths = ANY_WIDTH,
    ) -> None:
        share = allowed.max_ratio
        last = "its last channel" if share is None else f"what --max-ratio {share:g} leaves"
        super().__init__(candidates, allowed, f"every group is down to {last}")
        first = round(FIRST_STEP_SHARE * sum(group.units for group in groups))
        self._channels = self._max_channels = step or max(1, first)

    @property
    def can_shrink(self) -> bool:
        """See Proposer."""
        return self._channels > 1

    def propose(self, groups: Sequence[Group], scores: Mapping[str, Tensor]) -> list[Proposal]:
        """See Proposer."""
        return propose_sets(
            groups,
            scores,
            candidates=self.candidates,
            channels=self._channels,
            allowed=self.allowed,
        )

    def shrink_step(self, groups: Sequence[Group], proposal: Proposal) -> None:
        """See Proposer."""
        self._channels //= 2

    def grow_step(self) -> None:
        """See Proposer."""
        self._channels = min(2 * self._channels, self._max_channels)


class BlockProposer(Proposer):
    """Blocks of one group each, down to widths that pay on the runtime or were asked for.

    The cost per saving mostly rises as a network shrinks. Groups that were cheapest when last
    measured are therefore measured again first (lazy greedy; Minoux 1978), and the others only
    when their turn comes. A group whose smallest block breaks the budget is closed.
    """

    by_group = True

    def __init__(self, groups: Sequence[Group], candidates: int, allowed: AllowedWidths) -> None:
        rules = " and ".join((*allowed.rules, "fits the budget"))
        super().__init__(candidates, allowed, f"no group has a lower width that {rules}")
        widest = max(group.units for group in groups)
        # from 50 the next lower width may be 48; only the step after that is a full block
        lower = allowed.lower(widest)
        block = (lower - allowed.lower(lower)) or widest
        self._widths_down = min(MAX_BLOCKS, max(1, widest // (STEPS_TO_CROSS * block)))
        self._costs: dict[str, float] = {}
        self._closed: set[str] = set()

    @property
    def can_shrink(self) -> bool:
        """See Proposer; at last a group is closed."""
        return True

    def propose(self, groups: Sequence[Group], scores: Mapping[str, Tensor]) -> list[Proposal]:
        """See Proposer."""
        found = self._blocks(groups, scores)
        names = [name for name in found if name not in self._closed]
        proposals = [p for name in names if name not in self._costs for p in found[name]]
        measured = [name for name in names if name in self._costs]
        for name in sorted(measured, key=self._costs.__getitem__):
            if len(proposals) >= self.candidates:
                break
            proposals += found[name]
        return proposals

    def _blocks(
        self, groups: Sequence[Group], scores: Mapping[str, Tensor]
    ) -> dict[str, list[Proposal]]:
        """Return the distinct blocks of each group that has a lower width: its lowest units."""
        start, found, widths = 0, {}, self.allowed.widths_now(groups)
        for number, group in enumerate(groups):
            own = [score[start : start + group.units] for score in scores.values()]
            orders = [torch.argsort(score, stable=True) for score in own]
            counts = self.allowed.units_to_go(group, orders, widths, self._widths_down)
            blocks: dict[tuple[int, ...], Proposal] = {}
            for metric, order, count in zip(scores, orders, counts, strict=True):
                lowest = order[:count].sort().values
                units = [torch.empty(0, dtype=torch.int64)] * len(groups)
                units[number] = lowest
                blocks.setdefault(tuple(lowest.tolist()), Proposal(metric, tuple(units)))
            blocks.pop((), None)
            if blocks:
                found[group.name] = list(blocks.values())
            start += group.units
        return found

    def learn(
        self, groups: Sequence[Group], proposals: Sequence[Proposal], costs: Sequence[float]
    ) -> None:
        """Remember each group by its cheapest block."""
        cheapest: dict[str, float] = {}
        for proposal, cost in zip(proposals, costs, strict=True):
            name = _group_name(groups, proposal)
            cheapest[name] = min(cost, cheapest.get(name, cost))
        self._costs |= cheapest

    def shrink_step(self, groups: Sequence[Group], proposal: Proposal) -> None:
        """See Proposer."""
        if self._widths_down > 1:
            self._widths_down //= 2
        else:
            self._closed.add(_group_name(groups, proposal))

    def reopen(self) -> None:
        """Open the closed groups; blocks stay as small as they have become."""
        self._closed.clear()


def _group_name(groups: Sequence[Group], proposal: Proposal) -> str:
    return next(g.name for g, units in zip(groups, proposal.units, strict=True) if len(units))
