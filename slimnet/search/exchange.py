"""Exchanges: a removed block is given back where one that saves more can go in its place.

The greedy search removes the cheapest block at each step. It can end with much of the budget left,
although no further block fits: one would fit if an earlier block of another group had stayed.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from slimnet.groups import Group
from slimnet.records import Candidate, Step
from slimnet.search.candidates import Proposal
from slimnet.search.objective import cost_per_saving
from slimnet.search.state import State
from slimnet.search.widths import AllowedWidths

MIN_GAIN = 0.01
"""An exchange must save this share more than is saved already. A guess: less is not worth the
time."""

MAX_TRIED = 8
"""How many exchanges are evaluated in turn, at most. A guess: each takes the time of a step without
the oracle, and the most promising come first."""


@dataclass(frozen=True)
class Exchange:
    """``taken`` is removed and ``given_back`` stays, both in the original numbering.

    ``units[i]`` are all units of group i that are gone after the exchange.
    """

    taken: Candidate
    given_back: Candidate
    units: tuple[Tensor, ...]


def start_of_exchanges(state: State) -> State | None:
    """Return the state before anything was removed, None where it exceeds the memory budget."""
    size = sum(known.inverse.nbytes for known in state.inverse_grams.values())
    return state if size <= state.running.memory.total_bytes else None


def propose_exchanges(
    groups: Sequence[Group],
    left: Sequence[Tensor],
    steps: Sequence[Step],
    best_step: int,
    savings: Callable[[Sequence[Proposal]], Sequence[float]],
    allowed: AllowedWidths,
) -> list[Exchange]:
    """Return the exchanges worth trying, the lowest cost per additional saving first.

    The cost is the sensitivity of the block to remove minus that of the block to give back, both as
    they were measured. The block to remove is the last of its group that broke the budget, if the
    group has not changed since.

    Args:
        groups: before anything was removed.
        left: the units that are left of each group, in the original numbering.
        steps: of a search in blocks of one group each. Those up to ``best_step`` that were not
            taken back led to ``left``; the blocks of all others broke the budget.
        best_step: the number of the last step within the budget.
        savings: returns how much proposals of units to remove from ``groups`` save.
        allowed: the widths that layers may have after an exchange.
    """
    removed, refused = _removed_and_refused(steps, best_step)
    gone = {
        group.name: set(range(group.units)) - set(units.tolist())
        for group, units in zip(groups, left, strict=True)
    }
    exchanges = [
        Exchange(taken, blocks[-1], _units_after(gone, taken, blocks[-1]))
        for name, taken in refused.items()
        for other, blocks in removed.items()
        if other != name and blocks
    ]
    saved_now, *saved_after = savings(
        [Proposal("", _units_after(gone)), *(Proposal("", one.units) for one in exchanges)]
    )
    costs = {}
    for number, (one, saved) in enumerate(zip(exchanges, saved_after, strict=True)):
        nats, more = one.taken.sensitivity - one.given_back.sensitivity, saved - saved_now
        if more >= MIN_GAIN * saved_now and allowed.are_multiples_after(groups, one.units):
            costs[number] = cost_per_saving(nats, more)
    return [exchanges[number] for number in sorted(costs, key=costs.__getitem__)[:MAX_TRIED]]


def _removed_and_refused(
    steps: Sequence[Step], best_step: int
) -> tuple[Mapping[str, list[Candidate]], Mapping[str, Candidate]]:
    """Return, by group, the removed blocks in their order, and the block to try again."""
    removed: dict[str, list[Candidate]] = defaultdict(list)
    refused: dict[str, Candidate] = {}
    for number, step in enumerate(steps, 1):
        block = step.candidates[step.chosen]
        if step.taken_back or number > best_step:
            refused |= dict.fromkeys(block.channels, block)
            continue
        for name in step.given_back:
            removed[name].pop()
        for name in block.channels:
            removed[name].append(block)
        for name in (*step.given_back, *block.channels):
            refused.pop(name, None)
    return removed, refused


def _units_after(
    gone: Mapping[str, set[int]],
    taken: Candidate | None = None,
    given_back: Candidate | None = None,
) -> tuple[Tensor, ...]:
    """Return the units of each group that are gone after an exchange, sorted int64."""
    more, less = (block.channels if block else {} for block in (taken, given_back))
    return tuple(
        torch.tensor(sorted(units.union(more.get(name, ())) - set(less.get(name, ()))),
                     dtype=torch.int64)
        for name, units in gone.items()
    )  # fmt: skip
