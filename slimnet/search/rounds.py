"""The search in rounds: measure every group at several widths, and choose the best combination.

A round gathers statistics once. For each group and each of the next widths that are allowed, the
metrics propose sets of units, and the oracle measures which set costs least. From this table comes
the combination that saves a share of the cost at the lowest summed loss. It is removed at once, and
the network is refitted and evaluated. While little of the budget is used, a larger share is chosen
from the same table; beyond the budget a smaller one.
"""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from slimnet.groups import Group
from slimnet.search.allocation import Allocation, Choice, allocate
from slimnet.search.evaluate import CandidateEvaluator, MeasuredCandidates
from slimnet.search.objective import Objective, cost_per_saving
from slimnet.search.recovery import EvaluatedState, Recovery
from slimnet.search.state import State
from slimnet.search.steps import NO_FINITE_LOSS, StepRecords, candidates_of

FIRST_SHARE = 0.15
"""Of its cost, what a round chooses first. A guess: a larger share rests on measurements of a
network that is not there any more, a smaller one makes more rounds."""

MAX_TRIES = 8
"""Choices from one table. A guess."""

MIN_GAIN = 0.01
"""A choice must save this share of the cost. A guess: less is not worth its time."""

SHARE_OF_BUDGET = 0.75
"""A round ends when this share of the budget left has been used. With all of it the search is
faster, but its later choices rest on measurements of a network that is not there any more."""

NATS_GROWTH = 4.0
"""A group's narrower widths are measured until one costs this many times as much as the dearest
choice of the round before. A guess: rounds that follow go further."""

MAX_CONTINUATIONS = 5
"""How often the search goes on from a recovered network, at most. A guess that bounds the time."""


@dataclass
class RoundSearch:
    """One search under way. ``best`` is the last state within the budget, ``steps`` led there.

    Widths narrower than one that costs ``max_nats`` are not measured.
    """

    objective: Objective
    evaluator: CandidateEvaluator
    recovery: Recovery
    steps: StepRecords
    max_drop: float
    best: EvaluatedState
    share: float = FIRST_SHARE
    max_nats: float = math.inf

    def run(self) -> str:
        """Remove until nothing more fits the budget; return why that is."""
        recovered_step = 0
        for _ in range(1 + MAX_CONTINUATIONS):
            ended = self._rounds()
            if self.steps.best_step == recovered_step or not self._recover():
                break
            recovered_step = self.steps.best_step
        return ended

    def _rounds(self) -> str:
        while True:
            started, state = time.perf_counter(), self.best.state
            measured = self.evaluator.measure_widths(state, self.max_nats)
            if not measured.proposals:
                rules = " and ".join((*self.objective.allowed.rules, "fits the budget"))
                return f"no group has a lower width that {rules}"
            if not measured.best:
                return NO_FINITE_LOSS
            if reason := self._choose(state, measured, started):
                return reason
            self.objective.refresh(self.best.state.model)

    def _choose(self, state: State, measured: MeasuredCandidates, started: float) -> str:
        """Remove the best combination within the budget; return why there is none, if so."""
        table = Shares(state, self.objective, measured)
        start, accepted = self.best.drop.upper_points, False
        enough = start + SHARE_OF_BUDGET * (self.max_drop - start)
        low, high, share = 0.0, math.inf, self.share
        for _ in range(MAX_TRIES):
            allocation = table.allocate(share, low, high)
            if allocation is None:
                break
            after = self._evaluate(state, measured, allocation, started)
            started = time.perf_counter()
            if after.is_within(self.max_drop):
                self._keep(after, allocation, replaces=accepted)
                accepted, low = True, allocation.saved
                if after.drop.upper_points > enough:
                    break
                share = 2 * low / table.cost
            elif len(allocation.choices) == 1:
                table.drop(allocation.choices[0])  # another group may still have room
            else:
                high = allocation.saved
            if high < math.inf:
                share = (low + high) / 2 / table.cost
        self.share = min(FIRST_SHARE, max(low, high / 2 if high < math.inf else 0) / table.cost)
        if accepted:
            return ""
        if len(self.steps.all) == self.steps.best_step:
            return "no combination of lower widths saves 1 % of the cost"
        return self.steps.why_over_budget()

    def _evaluate(
        self, state: State, measured: MeasuredCandidates, allocation: Allocation, started: float
    ) -> EvaluatedState:
        """Return the state without these choices, refitted, and record the step that led there."""
        after = self.recovery.after_round(
            state.without(units_of(allocation.choices, state.groups)), self.steps.next_number
        )
        self.steps.add(
            after,
            candidates_of(state.groups, measured),
            [choice.number for choice in allocation.choices],
            loss=self.evaluator.mean_loss(after.state),
            started=started,
            taken_back=not after.is_within(self.max_drop),
        )
        return after

    def _keep(self, after: EvaluatedState, allocation: Allocation, *, replaces: bool) -> None:
        """Make this the best state; it may replace the one before, from the same table."""
        dearest = max(choice.nats for choice in allocation.choices)
        self.max_nats = NATS_GROWTH * max(dearest, 0.0)
        self.steps.keep_last(replaces=replaces)
        self.best = after

    def _recover(self) -> bool:
        """Recover the best state; return whether that makes room for more in the budget."""
        points = self.best.drop.upper_points
        self.best = self.recovery.at_the_end(self.best, self.steps.best_step)
        self.steps.finished_by = self.best.recovered_by
        if self.best.drop.upper_points >= points:
            return False
        self.steps.take_back_rest()
        return True


def units_of(choices: Sequence[Choice], groups: Sequence[Group]) -> list[Tensor]:
    """Return the units of each group that go with these choices."""
    units = [torch.empty(0, dtype=torch.int64)] * len(groups)
    for choice in choices:
        for number in choice.groups:
            units[number] = choice.proposal.units[number]
    return units


class Shares:
    """The choices from one table by the share of the cost that they save."""

    def __init__(self, state: State, objective: Objective, measured: MeasuredCandidates) -> None:
        self._state, self._objective = state, objective
        self._choices = [
            Choice(measured.proposals[n], measured.sensitivities[n].nats, n) for n in measured.best
        ]
        widths = objective.widths(state)
        self.cost = sum(objective.cost_of(name, width) for name, width in widths.items())

    def drop(self, choice: Choice) -> None:
        """Choose this, and what takes more from the same groups, no more."""
        self._choices = [
            other
            for other in self._choices
            if not choice.groups <= other.groups or other.proposal.count < choice.proposal.count
        ]

    def allocate(self, share: float, low: float, high: float) -> Allocation | None:
        """Return what saves most within a share of the cost, None where there is nothing new.

        It saves more than ``low`` and less than ``high``, both in the objective's unit. The choice
        that costs least for what it saves may save more than the share.
        """
        least = max(MIN_GAIN * self.cost, low * (1 + MIN_GAIN))
        proposals = [choice.proposal for choice in self._choices]
        savings = self._objective.savings(self._state, proposals)
        costs = {
            saved: cost_per_saving(choice.nats, saved)
            for choice, saved in zip(self._choices, savings, strict=True)
            if least <= saved < high * (1 - MIN_GAIN)
        }
        limit = max(share * self.cost, min(costs, key=costs.__getitem__, default=0.0))
        found = allocate(self._state, self._choices, self._objective, limit)
        groups = self._state.groups
        if not self._objective.allowed.are_multiples_after(groups, units_of(found.choices, groups)):
            return None  # layers behind a concatenation lose channels of several groups
        return found if least <= found.saved < high * (1 - MIN_GAIN) else None
