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
from slimnet.records import Candidate
from slimnet.search.allocation import Allocation, Choice, select
from slimnet.search.budget_search import BudgetSearch
from slimnet.search.evaluate import MeasuredCandidates
from slimnet.search.latency_table import Width
from slimnet.search.objective import Objective, cost_per_saving, saved
from slimnet.search.recovery import EvaluatedState
from slimnet.search.state import State
from slimnet.search.steps import NO_FINITE_LOSS, candidates_of

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


@dataclass
class RoundSearch(BudgetSearch):
    """The search in rounds.

    A round chooses ``share`` of the cost first. Widths narrower than one that costs ``max_nats``
    are not measured.
    """

    share: float = FIRST_SHARE
    max_nats: float = math.inf

    def remove(self) -> str:
        """Remove in rounds, from the best state on; return why that ended."""
        objective = self.evaluator.objective
        while True:
            started, state = time.perf_counter(), self.best.state
            measured = self.evaluator.measure_widths(state, self.max_nats)
            if not measured.proposals:
                rules = " and ".join((*objective.allowed.rules, "fits the budget"))
                return f"no group has a lower width that {rules}"
            if not measured.best:
                return NO_FINITE_LOSS
            if reason := self._choose(state, measured, started):
                return reason
            objective.refresh(self.best.state.model)

    def _choose(self, state: State, measured: MeasuredCandidates, started: float) -> str:
        """Remove the best combination within the budget; return why there is none, if so."""
        table = Shares(state, self.evaluator.objective, measured)
        candidates = candidates_of(state.groups, measured)
        start, accepted = self.best.drop.upper_points, False
        enough = start + SHARE_OF_BUDGET * (self.max_drop - start)
        low, high, share = 0.0, math.inf, self.share
        for _ in range(MAX_TRIES):
            allocation = table.allocate(share, low, high)
            if allocation is None:
                break
            after = self._evaluate(state, candidates, allocation, started)
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
        self,
        state: State,
        candidates: Sequence[Candidate],
        allocation: Allocation,
        started: float,
    ) -> EvaluatedState:
        """Return the state without these choices, refitted, and record the step that led there."""
        after = self.recovery.after_round(
            state.without(units_of(allocation.choices, state.groups)), self.steps.next_number
        )
        self.steps.add(
            after,
            candidates,
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
        self._groups, self._objective = state.groups, objective
        self._widths = objective.widths(state)
        self._choices = [
            Choice(measured.proposals[n], measured.sensitivities[n].nats, n) for n in measured.best
        ]
        self._effects = {
            choice.number: objective.removed(state, choice.proposal, self._widths)
            for choice in self._choices
        }
        self._known: dict[tuple[str, int, int], float] = {}
        self.cost = sum(objective.cost_of(name, width) for name, width in self._widths.items())

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
        least, most = max(MIN_GAIN * self.cost, low * (1 + MIN_GAIN)), high * (1 - MIN_GAIN)
        effects = [self._effects[choice.number] for choice in self._choices]
        savings = [saved(less, self._widths, self._objective.cost_of) for less in effects]
        costs = {
            saving: cost_per_saving(choice.nats, saving)
            for choice, saving in zip(self._choices, savings, strict=True)
            if least <= saving < most
        }
        limit = max(share * self.cost, min(costs, key=costs.__getitem__, default=0.0))
        found = select(self._choices, effects, self._cost_of, limit)
        units = units_of(found.choices, self._groups)
        if not self._objective.allowed.are_multiples_after(self._groups, units):
            return None  # layers behind a concatenation lose channels of several groups
        return found if least <= found.saved < most else None

    def _cost_of(self, layer: str, inputs: int, outputs: int) -> float:
        """Return the cost of a layer without these inputs and outputs; see ``select``."""
        if not layer:
            return self.cost
        key = layer, inputs, outputs
        if key not in self._known:
            width = self._widths[layer].without(Width(inputs, outputs))
            self._known[key] = self._objective.cost_of(layer, width)
        return self._known[key]
