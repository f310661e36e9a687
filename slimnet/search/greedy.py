"""The greedy search: remove the cheapest candidate, again and again, until the budget ends it."""

from __future__ import annotations

import time
from dataclasses import dataclass
from functools import partial

from slimnet.records import Step
from slimnet.search.evaluate import MeasuredCandidates, StepEvaluator
from slimnet.search.exchange import Exchange, propose_exchanges
from slimnet.search.objective import Objective
from slimnet.search.recovery import EvaluatedState, Recovery
from slimnet.search.state import State
from slimnet.search.steps import StepRecords, candidates_of

PATIENCE = 8
"""The search takes at most this many more steps after one that breaks the budget. Accuracy on a
finite split is noisy, and a later step may be within the budget again. Only single channels get so
far: larger candidates are taken back and shrink first. A guess; each costs the time of a step."""

MAX_CONTINUATIONS = 5
"""How often the search goes on from a recovered or exchanged network, at most. A guess that bounds
the time: each time is a search of its own."""

NO_FINITE_LOSS = "every remaining candidate makes the loss NaN or infinite"


@dataclass
class GreedySearch:
    """One search under way. ``best`` is the last state within the budget, ``steps`` led there.

    ``first`` is the state before anything was removed, None where nothing may be exchanged.
    """

    objective: Objective
    evaluator: StepEvaluator
    recovery: Recovery
    steps: StepRecords
    max_drop: float
    first: State | None
    best: EvaluatedState

    def run(self) -> str:
        """Remove until nothing more fits the budget; return why that is.

        Where recovery or an exchange of blocks makes room in the budget, the search goes on.
        """
        recovered_step = 0
        for continuations in range(1 + MAX_CONTINUATIONS):
            ended = self._remove()
            gained = self.steps.best_step > recovered_step and self._recover()
            recovered_step = self.steps.best_step
            if not gained and not (continuations < MAX_CONTINUATIONS and self._exchange()):
                break
        return ended

    def _remove(self) -> str:
        """Remove the cheapest candidates, from the best state on; return why that ended."""
        state, misses, proposer = self.best.state, 0, self.objective.proposer
        while misses <= PATIENCE:
            started = time.perf_counter()
            found = self.evaluator.measure(state)
            if found.chosen is None:
                break
            step, after = self._take_step(state, found, found.chosen, started)
            if step.taken_back:
                continue
            state = after.state
            self.objective.refresh(state.model)
            if step.within_budget:
                self._keep(after)
                proposer.grow_step()
                misses = 0
            else:
                misses += 1
        if found.chosen is None and found.proposals:
            return NO_FINITE_LOSS
        return self.steps.why_over_budget() if misses else proposer.nothing_left

    def _take_step(
        self, state: State, found: MeasuredCandidates, chosen: int, started: float
    ) -> tuple[Step, EvaluatedState]:
        """Remove the chosen candidate; return the record of the step and where it leads.

        A step that breaks the budget is taken back where something smaller can be tried.
        """
        best, nats = found.proposals[chosen], [s.nats for s in found.sensitivities]
        self.objective.learn(state.groups, found.proposals, found.savings, nats)
        after = self._evaluate(state.without(best.units))
        proposer = self.objective.proposer
        smaller = not after.is_within(self.max_drop) and proposer.can_shrink
        if smaller:
            proposer.shrink_step(state.groups, best)
        step = self.steps.add(
            after,
            candidates_of(state.groups, found),
            chosen,
            loss=found.loss + nats[chosen],
            started=started,
            taken_back=smaller,
        )
        return step, after

    def _recover(self) -> bool:
        """Recover the best state; return whether that makes room for more in the budget."""
        points = self.best.drop.upper_points
        self.evaluator.free_memory()
        self.best = self.recovery.at_the_end(self.best, self.steps.best_step)
        self.steps.finished_by = self.best.recovered_by
        if self.best.drop.upper_points >= points:
            return False
        self.steps.take_back_rest()
        self.objective.proposer.reopen()
        return True

    def _exchange(self) -> bool:
        """Give a removed block back for a larger one; return whether one fits the budget."""
        first = self.first
        if first is None or self.best.state.tuned or not self.steps.best_step:
            return False
        for exchange in self._exchanges(first):
            started = time.perf_counter()
            after = self._evaluate(first.without(exchange.units))
            within = after.is_within(self.max_drop)
            self.steps.add(
                after,
                [exchange.taken],
                0,
                loss=self.evaluator.mean_loss(after.state),
                started=started,
                taken_back=not within,
                given_back=exchange.given_back.channels,
            )
            if within:
                self._keep(after)
                self.objective.proposer.reopen()
                return True
        return False

    def _exchanges(self, first: State) -> list[Exchange]:
        left = [group.original_units for group in self.best.state.groups]
        savings = partial(self.objective.savings, first)
        allowed = self.objective.proposer.allowed
        return propose_exchanges(
            first.groups, left, self.steps.all, self.steps.best_step, savings, allowed
        )

    def _evaluate(self, state: State) -> EvaluatedState:
        """Return the state that the next step leads to, recovered where that is worthwhile."""
        undone_if_over_budget = self.objective.proposer.can_shrink
        return self.recovery.after_step(state, self.steps.next_number, last=undone_if_over_budget)

    def _keep(self, after: EvaluatedState) -> None:
        self.steps.keep_last()
        self.best = after
