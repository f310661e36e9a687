"""Exchanges: a block is given back where one that is worth more can go in its place.

A walk takes the cheapest block at each step. It can end with much of the budget left, in a network
of which no further block fits, though one would if an earlier block of another group had stayed.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from slimnet.groups import Group
from slimnet.records import Candidate, Step
from slimnet.search.allowed import AllowedWidths
from slimnet.search.cost import price
from slimnet.search.proposals import Proposal
from slimnet.search.state import State

LEAST_GAIN = 0.01
"""An exchange saves by at least this share more than is saved already."""

MOST_TRIED = 8

MOST_BYTES = 2**29
"""What an exchange starts from, the whole network's moments, is kept if it takes no more."""


@dataclass(frozen=True)
class Exchange:
    """``taken`` goes after all; ``given_back`` stays. Channels are original units of groups.

    ``units[i]`` are all that are gone of group i after it, in the original numbering.
    """

    taken: Candidate
    given_back: Candidate
    units: tuple[Tensor, ...]


def start_of_exchanges(state: State) -> State | None:
    """Return the state before anything was removed, None where it is too large to be kept."""
    size = sum(known.inverse.nbytes for known in state.moments.values())
    return state if size <= MOST_BYTES else None


def propose_exchanges(
    groups: Sequence[Group],
    left: Sequence[Tensor],
    steps: Sequence[Step],
    kept_steps: int,
    savings: Callable[[Sequence[Proposal]], Sequence[float]],
    allowed: AllowedWidths,
) -> list[Exchange]:
    """Return the exchanges worth trying, those first that cost least for what they save more.

    What an exchange costs is reckoned from what both blocks cost when they were measured. What is
    taken is the last block of a group that broke the budget, where the group is as it was then.

    Args:
        groups: before anything was removed.
        left: the units that are left of each group, in the original numbering.
        steps: of a search in blocks of one group each. Those up to ``kept_steps`` that were not
            taken back led to what is left, and the blocks of all others broke the budget.
        kept_steps: the number of the last step kept.
        savings: what proposals of units to remove from ``groups`` save.
        allowed: what holds for the widths that layers have after an exchange.
    """
    removed, refused = _removed_and_refused(steps, kept_steps)
    gone = {g.name: _without(torch.arange(g.units), u) for g, u in zip(groups, left, strict=True)}
    exchanges = [
        Exchange(taken, blocks[-1], _units(groups, gone, taken, blocks[-1].channels))
        for name, taken in refused.items()
        for other, blocks in removed.items()
        if other != name and blocks
    ]
    now, *after = savings(
        [Proposal("", tuple(gone.values())), *(Proposal("", one.units) for one in exchanges)]
    )
    prices = {}
    for number, (one, saved) in enumerate(zip(exchanges, after, strict=True)):
        nats = one.taken.sensitivity - one.given_back.sensitivity
        if saved - now >= LEAST_GAIN * now and allowed.hold_after(groups, one.units):
            prices[number] = price(nats, saved - now)
    return [exchanges[number] for number in sorted(prices, key=prices.__getitem__)[:MOST_TRIED]]


def _removed_and_refused(
    steps: Sequence[Step], kept_steps: int
) -> tuple[Mapping[str, list[Candidate]], Mapping[str, Candidate]]:
    """Return, by group, the blocks that are gone in their order, and the one to be tried again."""
    removed: dict[str, list[Candidate]] = defaultdict(list)
    refused: dict[str, Candidate] = {}
    for number, step in enumerate(steps, 1):
        block = step.candidates[step.chosen]
        if step.taken_back or number > kept_steps:
            refused |= dict.fromkeys(block.channels, block)
            continue
        for name in step.given_back:
            removed[name].pop()
        for name in block.channels:
            removed[name].append(block)
        for name in (*step.given_back, *block.channels):
            refused.pop(name, None)
    return removed, refused


def _units(
    groups: Sequence[Group],
    gone: Mapping[str, Tensor],
    taken: Candidate,
    given_back: Mapping[str, Sequence[int]],
) -> tuple[Tensor, ...]:
    """Return what is gone of each group after an exchange, sorted."""
    units = []
    for group in groups:
        more = torch.tensor(taken.channels.get(group.name, ()), dtype=torch.int64)
        stays = torch.tensor(given_back.get(group.name, ()), dtype=torch.int64)
        units.append(torch.unique(_without(torch.cat([gone[group.name], more]), stays)))
    return tuple(units)


def _without(units: Tensor, others: Tensor) -> Tensor:
    return units[~torch.isin(units, others)]
