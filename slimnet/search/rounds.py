"""The search in rounds: measure every group at several widths, and choose the best combination.

A round gathers statistics once. For each group and each of the next widths that are allowed, the
metrics propose sets of units, and the oracle measures which set costs least. From this table comes
the combination that saves most for an allowed sum of distances. It is removed at once, and the
network is refitted and evaluated. How much of the budget that used tells which sum to allow next,
from the same table: a larger one while little is used, a smaller one beyond the budget.

Distances are shares without unit, see ``output_distances``. They are called ``nats`` here and in
``allocation``, as in the oracle's records, which hold changes of the loss as well.
"""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from slimnet.groups import Group
from slimnet.records import Candidate
from slimnet.search.allocation import Allocation, Choice, select
from slimnet.search.budget_search import PATH_STATES, BudgetSearch
from slimnet.search.evaluate import MeasuredCandidates
from slimnet.search.latency_table import Width
from slimnet.search.objective import Objective
from slimnet.search.recovery import EvaluatedState
from slimnet.search.state import State
from slimnet.search.steps import NO_FINITE_LOSS, candidates_of

FIRST_DISTANCE = 0.0025
"""The sum of distances that the first try may add; see ``output_distances``. A guess: it cost the
paper's networks up to half a point."""

MAX_GROWTH = 4.0
"""A try allows at most this many times the distance of the try before, and a round measures widths
up to this many times the largest distance chosen before. A guess: what was measured near the
network as it stands says little far from it."""

MAX_FIRST_DISTANCE = 0.5
"""Narrower widths than one with this distance are not measured in the first round. A guess: a whole
budget of 5 points was 0.1 to 0.2."""

MAX_TRIES = 5
"""Choices from one table. A guess."""

MAX_FAILURES = 2
"""After so many tries in a row beyond the budget a round ends, if half of the budget is used. A
guess."""

MIN_GAIN = 0.02
"""A choice must save this share of the cost. A guess: less is not worth its time."""

SHARE_OF_BUDGET = 0.6
"""A round ends when this share of the budget left has been used. With all of it the search is
faster, but its later choices rest on measurements of a network that is not there any more."""

MIN_LEFT = 0.05
"""With less than this share of the budget left the search ends. A guess: of 423 selection images,
half a point is two."""

AIM = 0.8
"""A try aims to use this share of the budget left. A guess: what lies beyond the budget is lost."""

MIN_PARTS = 4
"""States in the path for each round, at least, the last one included. The points that a round used
are noisy: on LeNet-5 a round of no points on 212 images was one of 6 on others."""

RAISE = 1.5
"""Where nothing fits the allowed distance, this many times as much is allowed. A guess."""

MIN_STEP = 0.2
"""A try between one within the budget and one beyond it keeps away from both by at least this share
of the interval. A guess, against the noise of the selection images."""


@dataclass
class RoundSearch(BudgetSearch):
    """The search in rounds.

    A round allows the summed distance ``allowed`` first. Widths narrower than one that costs
    ``max_nats`` are not measured. ``budget`` are the points that the search has to use.
    """

    allowed: float = FIRST_DISTANCE
    max_nats: float = MAX_FIRST_DISTANCE
    budget: float = field(init=False)

    def __post_init__(self) -> None:
        """Note how many points there are to use: few images take some for their uncertainty."""
        self.budget = self.max_drop - self.best.drop.points

    def remove(self) -> str:
        """Remove in rounds, from the best state on; return why that ended."""
        objective = self.evaluator.objective
        while True:
            if self.max_drop - self.best.drop.points < MIN_LEFT * self.budget:
                return f"{self.best.drop.points:.2f} of {self.max_drop:g} points are used"
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
        table = Table(state, self.evaluator.objective, measured)
        candidates = candidates_of(state.groups, measured)
        start, first = self.best.drop.points, self.steps.next_number
        chain = self.steps.standing
        enough = start + SHARE_OF_BUDGET * (self.max_drop - start)
        tries = Tries(start, start + AIM * (self.max_drop - start), self.allowed)
        for _ in range(MAX_TRIES):
            allocation = table.allocate(tries)
            if allocation is None:
                break
            after = self._evaluate(state, candidates, allocation, started)
            started = time.perf_counter()
            one = Try(allocation.nats, allocation.saved, after.drop.points)
            if after.is_within(self.max_drop):
                self._keep(after, allocation, replaces=tries.low.saved > 0)
                tries.fits(one)
            elif len(allocation.choices) > 1:
                tries.breaks(one)
            else:
                tries.failures += 1
                table.drop(allocation.choices[0])  # another group may still have room
            half_used = tries.low.points > self.max_drop - self.budget / 2
            if tries.low.points > enough or (half_used and tries.failures >= MAX_FAILURES):
                break
        self.allowed = tries.allowed_next_round(self.max_drop)
        if tries.low.saved > 0:
            if self.keeps_path:
                self._extend_path(state, chain, table, candidates, tries)
            return ""
        if self.steps.next_number == first:
            return f"no combination of lower widths saves {100 * MIN_GAIN:g} % of the cost"
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

    def _extend_path(
        self,
        state: State,
        chain: tuple[int, ...],
        table: Table,
        candidates: Sequence[Candidate],
        tries: Tries,
    ) -> None:
        """Keep the best state, and smaller choices from the table that it came from before it."""
        used = (tries.low.points - tries.start) / max(self.max_drop, 1e-9)
        parts = min(PATH_STATES, max(MIN_PARTS, round(PATH_STATES * used)))
        least = MIN_GAIN * table.cost
        for part in range(1, parts):
            found = table.within(part / parts * tries.low.nats)
            if found is None or not least <= found.saved < tries.low.saved * (1 - MIN_GAIN):
                continue
            least = found.saved + MIN_GAIN * table.cost
            smaller = state.without(units_of(found.choices, state.groups))
            self._add_to_path(smaller, chain, candidates, [one.number for one in found.choices])
        self._add_to_path(self.best.state, self.steps.standing)

    def _keep(self, after: EvaluatedState, allocation: Allocation, *, replaces: bool) -> None:
        """Make this the best state; it may replace the one before, from the same table."""
        largest = max(choice.nats for choice in allocation.choices)
        self.max_nats = MAX_GROWTH * max(largest, FIRST_DISTANCE)
        self.steps.keep_last(replaces=replaces)
        self.best = after


def units_of(choices: Sequence[Choice], groups: Sequence[Group]) -> list[Tensor]:
    """Return the units of each group that go with these choices."""
    units = [torch.empty(0, dtype=torch.int64)] * len(groups)
    for choice in choices:
        for number in choice.groups:
            units[number] = choice.proposal.units[number]
    return units


@dataclass(frozen=True)
class Try:
    """The nats of a combination, what it saves, and the points of the network without it."""

    nats: float
    saved: float
    points: float


@dataclass
class Tries:
    """The tries from one table: the last one within the budget, and the last one beyond it.

    ``start`` are the points before the round, ``aim`` those that it should come to. ``allowed`` is
    the distance that the next try may add, ``failures`` are the last tries in a row that broke the
    budget.
    """

    start: float
    aim: float
    allowed: float
    low: Try = field(init=False)
    before: Try = field(init=False)
    high: Try | None = None
    failures: int = 0

    def __post_init__(self) -> None:
        """Begin with nothing removed."""
        self.low = self.before = Try(0.0, 0.0, self.start)

    def fits(self, one: Try) -> None:
        """Take in a try within the budget."""
        self.before, self.low, self.failures = self.low, one, 0
        self.allowed = self._next_allowed()

    def breaks(self, one: Try) -> None:
        """Take in a try beyond the budget."""
        self.high, self.failures = one, self.failures + 1
        self.allowed = self._next_allowed()

    def _next_allowed(self) -> float:
        """Return the distance that comes to the aim, if points go on as between the last tries."""
        low, high = self.low, self.high
        if high is None:
            return low.nats + self._more(self.aim)
        share = (self.aim - low.points) / max(high.points - low.points, 1e-9)
        share = min(1 - MIN_STEP, max(MIN_STEP, share))
        return low.nats + share * (high.nats - low.nats)

    def allowed_next_round(self, max_drop: float) -> float:
        """Return what the next round allows first: what should use what is left of the budget."""
        left = self._more(max_drop)
        if self.high is not None:
            left = min(left, self.high.nats - self.low.nats)
        return SHARE_OF_BUDGET * left

    def _more(self, points: float) -> float:
        """Return how much distance is left until ``points``, by the last two tries."""
        low, before = self.low, self.before
        wanted, used = max(0.0, points - low.points), max(0.0, low.points - before.points)
        max_more, step = (MAX_GROWTH - 1) * max(low.nats, 0.0), low.nats - before.nats
        return min(max_more, step * wanted / used) if used > 0 and step > 0 else max_more


class Table:
    """The measured choices of a round, and what they save."""

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
        """Exclude a choice, and all that take as much or more from the same groups."""
        self._choices = [
            other
            for other in self._choices
            if not choice.groups <= other.groups or other.proposal.count < choice.proposal.count
        ]

    def allocate(self, tries: Tries) -> Allocation | None:
        """Return what saves most for the allowed distance, None where there is nothing new.

        It saves more than what was within the budget, and less than what was beyond it. Where the
        allowed distance is too small for that, more is allowed.
        """
        min_saved = max(MIN_GAIN * self.cost, tries.low.saved * (1 + MIN_GAIN))
        max_saved, limit = math.inf, max(0.0, tries.allowed)
        if tries.high is not None:
            max_saved = tries.high.saved * (1 - MIN_GAIN)
        effects = [self._effects[choice.number] for choice in self._choices]
        nats = [choice.nats for choice in self._choices if choice.nats > 0]
        while True:
            found = select(self._choices, effects, self._cost_of, limit)
            if found.saved >= min_saved or limit >= sum(nats):
                break
            limit = RAISE * max(limit, min(nats))
        if not self._is_allowed(found):
            return None
        return found if min_saved <= found.saved < max_saved else None

    def within(self, limit: float) -> Allocation | None:
        """Return what saves most for this distance, None where nothing may go."""
        effects = [self._effects[choice.number] for choice in self._choices]
        found = select(self._choices, effects, self._cost_of, limit)
        return found if self._is_allowed(found) else None

    def _is_allowed(self, found: Allocation) -> bool:
        """Return whether something goes and all widths are allowed.

        Layers behind a concatenation lose channels of several groups.
        """
        units = units_of(found.choices, self._groups)
        allowed = self._objective.allowed.are_multiples_after(self._groups, units)
        return bool(found.choices) and allowed

    def _cost_of(self, layer: str, inputs: int, outputs: int) -> float:
        """Return the cost of a layer without these inputs and outputs; see ``select``."""
        if not layer:
            return self.cost
        key = layer, inputs, outputs
        if key not in self._known:
            width = self._widths[layer].without(Width(inputs, outputs))
            self._known[key] = self._objective.cost_of(layer, width)
        return self._known[key]
