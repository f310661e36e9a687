"""Resting: a candidate that was far too dear a few steps ago is not measured again at once.

What one unit costs changes little while other single units go. Measured on all images at every
step of three networks, none of 2,000 candidates that would have rested was the lowest of its step,
nor had any come three quarters of the way there.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from slimnet.groups import Group
from slimnet.records import Plan, Sensitivity
from slimnet.search.cost import price
from slimnet.search.proposals import Proposal
from slimnet.search.state import State

TIMES_DEARER = 3.0
"""So many times the lowest price must a candidate cost to rest, ..."""

LOSS_SHARE = 0.01
"""... and this part of the mean loss more, since what is next to nothing varies more."""

MOST_STEPS = 3

Unit = tuple[str, int]


@dataclass
class Resting:
    """What single units cost in the last few states, by group and number in the original."""

    _groups: Sequence[Group] = ()
    _plan: Plan | None = None
    _renewals: int = 0
    _now: dict[Unit, float] = field(default_factory=dict)
    _earlier: dict[Unit, tuple[float, int]] = field(default_factory=dict)

    def begin(self, state: State) -> None:
        """Take note that another state comes: what was of the last one is a step older."""
        if self._plan is None or not state.narrows(self._plan, self._renewals):
            self.forget()
        older = {unit: (nats, steps + 1) for unit, (nats, steps) in self._earlier.items()}
        older |= {unit: (nats, 1) for unit, nats in self._now.items()}
        self._earlier = {unit: cost for unit, cost in older.items() if cost[1] <= MOST_STEPS}
        # not the state, which holds a network
        self._groups, self._plan, self._renewals = state.groups, state.plan, state.renewals
        self._now = {}

    def forget(self) -> None:
        """Forget what was measured: the next state has little in common with the last."""
        self._now, self._earlier = {}, {}

    def note(self, proposals: Sequence[Proposal], measured: Sequence[Sensitivity]) -> None:
        """Take note of what was measured of the state that began last."""
        if any(proposal.count > 1 for proposal in proposals):
            self.forget()
            return
        for proposal, sensitivity in zip(proposals, measured, strict=True):
            if sensitivity.images:
                self._now[self._unit(proposal)] = sensitivity.nats

    def too_dear(
        self, proposals: Sequence[Proposal], savings: Sequence[float], loss: float
    ) -> dict[int, float]:
        """Return the numbers of proposals that may rest, and what each cost when last measured."""
        known = {
            number: self._earlier[unit][0]
            for number, proposal in enumerate(proposals)
            if proposal.count == 1 and (unit := self._unit(proposal)) in self._earlier
        }
        lowest = min((price(nats, savings[i]) for i, nats in known.items()), default=0.0)
        return {i: n for i, n in known.items() if far_dearer(n, savings[i], lowest, loss)}

    def _unit(self, proposal: Proposal) -> Unit:
        groups = zip(self._groups, proposal.units, strict=True)
        return next((g.name, int(g.original_units[units[0]])) for g, units in groups if len(units))


def far_dearer(nats: float, saved: float, lowest: float, loss: float) -> bool:
    """Tell whether what cost so much, for so much saved, cannot reach the lowest price by drift.

    ``loss`` is the mean loss of the network as it stands, in nats.
    """
    return price(nats - LOSS_SHARE * loss, saved) > TIMES_DEARER * max(0.0, lowest)
