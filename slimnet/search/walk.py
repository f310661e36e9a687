"""The walk from the whole network to the last one within the budget, step by step."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

from torch import nn

from slimnet.records import Candidate, Step
from slimnet.search.exchange import propose_exchanges
from slimnet.search.journal import STEP, Journal
from slimnet.search.measuring import StepEvaluator
from slimnet.search.objective import Objective
from slimnet.search.recovery import Judged, Recovery
from slimnet.search.state import State
from slimnet.search.steps import candidates_of, make_step, why_over_budget
from slimnet.settings import Settings

PATIENCE = 8
MOST_RESUMPTIONS = 5
NO_LOSS = "the loss is no finite number without any of the channels that might go next"


@dataclass
class Walk:
    """One search under way: the steps so far, and ``kept``, the last state within the budget.

    ``kept_steps`` is the number of the step that led there, and ``first`` the state before
    anything was removed, None where nothing is to be exchanged.
    """

    original: nn.Module
    objective: Objective
    measuring: StepEvaluator
    recovery: Recovery
    settings: Settings
    progress: Callable[[Step], None]
    first: State | None
    kept: Judged
    journal: Journal
    kept_steps: int = 0
    ended: str = ""
    steps: list[Step] = field(default_factory=list)
    finished_by: tuple[str, ...] = ()

    def run(self) -> None:
        """Walk until nothing more fits the budget, and on while recovery or an exchange gains.

        That is MOST_RESUMPTIONS times at most.
        """
        finished = 0
        for resumptions_left in reversed(range(1 + MOST_RESUMPTIONS)):
            self._walk()
            gained = self.kept_steps > finished and self._finish()
            finished = self.kept_steps
            if not gained and not (resumptions_left and self._exchange()):
                break

    def _walk(self) -> None:
        """Go from the state kept, step by step, until the budget ends it.

        With single channels accuracy goes up and down, so it looks PATIENCE steps beyond.
        """
        state, misses, self.ended = self.kept.state, 0, ""
        while not self.ended:
            taken = self._take_step(state)
            if taken is None:
                proposer = self.objective.proposer
                over = why_over_budget(self._beyond) if misses else ""
                self.ended = self.ended or over or proposer.ended
                break
            step, following = taken
            if step.taken_back:
                continue
            state = following.state
            self.objective.refresh(state.model)
            if step.within_budget:
                self._keep(following)
                misses = 0
                self.objective.proposer.widen()
            elif (misses := misses + 1) > PATIENCE:
                self.ended = why_over_budget(self._beyond)

    def _finish(self) -> bool:
        """Recover the state kept; tell whether that gained accuracy, so that more may go.

        The steps beyond it then count as taken back.
        """
        points = self.kept.drop.upper_points
        self.measuring.free_memory()
        self.kept = self.recovery.at_the_end(self.kept, self.kept_steps)
        self.finished_by = self.kept.recovered_by
        gained = self.kept.drop.upper_points < points
        if gained:
            self.steps[self.kept_steps :] = [replace(s, taken_back=True) for s in self._beyond]
            self.objective.proposer.reopen()
        return gained

    @property
    def _beyond(self) -> list[Step]:
        """The steps after the last one kept."""
        return self.steps[self.kept_steps :]

    def _keep(self, found: Judged) -> None:
        """Keep what the last step led to; what recovered the state before it is that one's."""
        if self.finished_by:
            before = self.steps[self.kept_steps - 1]
            recovered_by = (*before.recovered_by, *self.finished_by)
            self.steps[self.kept_steps - 1] = replace(before, recovered_by=recovered_by)
        self.kept, self.kept_steps, self.finished_by = found, len(self.steps), ()

    def _take_step(self, state: State) -> tuple[Step, Judged] | None:
        """Return the best step from a state and where it leads; None if nothing can go."""
        started = time.perf_counter()
        found = self.measuring.measure(state)
        if found.chosen is None:
            if found.proposals:
                self.ended = NO_LOSS
            return None
        best, nats = found.proposals[found.chosen], [s.nats for s in found.sensitivities]
        self.objective.learn(state, found.proposals, found.savings, nats)
        after = self._judge(state.without(best.units))
        candidates, loss = candidates_of(state.groups, found), found.loss + nats[found.chosen]
        smaller = not self._within(after) and self.objective.proposer.narrow(state.groups, best)
        step = self._tell(after, started, candidates, found.chosen, loss, taken_back=smaller)
        return step, after

    def _exchange(self) -> bool:
        """Try to go on where every group is closed: some give back what lets others lose more.

        Return whether that fits the budget; the state kept is then the one after it.
        """
        first, kept, proposer = self.first, self.kept.state, self.objective.proposer
        if first is None or kept.tuned or not self.kept_steps:
            return False
        groups, left = first.groups, [group.original_units for group in kept.groups]
        savings = partial(self.objective.savings, first)
        exchanges = propose_exchanges(
            groups, left, self.steps, self.kept_steps, savings, proposer.allowed
        )
        for one in exchanges:
            started = time.perf_counter()
            after = self._judge(first.without(one.units))
            loss = self.measuring.mean_loss(after.state)
            back, within = one.given_back.channels, self._within(after)
            self._tell(after, started, [one.taken], 0, loss, taken_back=not within, given_back=back)
            if within:
                self._keep(after)
                proposer.reopen()
                return True
        return False

    def _judge(self, state: State) -> Judged:
        """Return a state that the next step leads to, after recovery where that is worth while."""
        last = self.objective.proposer.narrowing
        return self.recovery.after_step(state, len(self.steps) + 1, last=last)

    def _within(self, found: Judged) -> bool:
        return found.drop.upper_points <= self.settings.max_drop

    def _tell(
        self,
        after: Judged,
        started: float,
        candidates: Sequence[Candidate],
        chosen: int,
        loss: float,
        **told: Any,
    ) -> Step:
        """Return the next step, which is taken note of; ``loss`` is the one that it leads to.

        After a removal that is what the trial gave, before anything else recovers the network.
        """
        step = make_step(
            self.original,
            after,
            candidates,
            chosen,
            number=len(self.steps) + 1,
            calibration_loss=loss,
            within_budget=self._within(after),
            seconds=self.journal.once(STEP, lambda: time.perf_counter() - started),
            **told,
        )
        self.steps.append(step)
        self.progress(step)
        return step
