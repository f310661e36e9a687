"""The walk from the whole network to the last one within the budget, step by step."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import partial

from torch import Tensor, nn

from slimnet.measure import mean_loss
from slimnet.records import Batches, Drop, Step
from slimnet.saliency import default_metrics
from slimnet.search.exchange import propose_exchanges
from slimnet.search.journal import STEP, Journal
from slimnet.search.measured import Measured, from_plain
from slimnet.search.objective import Objective
from slimnet.search.oracle import Oracle
from slimnet.search.ranking import Ranking, rank
from slimnet.search.recovery import Recovery
from slimnet.search.state import State
from slimnet.search.steps import candidates_of, make_step, why_over_budget
from slimnet.settings import Settings

PATIENCE = 8
MOST_RESUMPTIONS = 5


@dataclass
class Walk:
    """One search under way from ``first``: the steps so far, and ``kept``, the last state within
    the budget.

    ``kept_drop`` is that state's, and ``kept_steps`` the number of the step that led there.
    """

    original: nn.Module
    objective: Objective
    oracle: Oracle
    recovery: Recovery
    images: Batches
    settings: Settings
    progress: Callable[[Step], None]
    first: State
    kept_drop: Drop
    journal: Journal
    kept_steps: int = 0
    ended: str = ""
    steps: list[Step] = field(default_factory=list)
    finished_by: list[str] = field(default_factory=list)
    _ranking: Ranking | None = None
    _losses: Tensor | None = None

    def __post_init__(self) -> None:
        """Begin with the whole network."""
        self.kept = self.first

    def run(self) -> None:
        """Walk until nothing more fits the budget, and on while recovery or an exchange gains."""
        for _ in range(1 + MOST_RESUMPTIONS):
            before = self.kept_steps
            self._walk()
            gained = self.kept_steps > before and self._finish()
            if not gained and not self._exchange():
                break

    def _walk(self) -> None:
        """Go from the state kept, step by step, until the budget ends it."""
        state, misses, self.ended = self.kept, 0, ""
        self._forget()
        while not self.ended:
            taken = self._take_step(state)
            if taken is None:
                self.ended = (
                    why_over_budget(self.steps[self.kept_steps :])
                    if misses
                    else self.objective.proposer.ended
                )
                break
            step, following = taken
            self.steps.append(step)
            self.progress(step)
            if step.taken_back:
                continue
            state = following
            self._forget()
            self.objective.refresh(state.model)
            if step.within_budget:
                self.kept, self.kept_drop, self.kept_steps = state, step.drop, step.number
                misses, self.finished_by = 0, []
                self.objective.proposer.widen()
            elif (misses := misses + 1) > PATIENCE:
                self.ended = why_over_budget(self.steps[self.kept_steps :])

    def _finish(self) -> bool:
        """Recover the state kept; tell whether that gained accuracy, so that more may go.

        The steps beyond it then count as taken back.
        """
        points = self.kept_drop.upper_points
        self.kept, self.kept_drop, self.finished_by = self.recovery.at_the_end(
            self.kept, self.kept_drop, self.kept_steps
        )
        gained = self.kept_drop.upper_points < points
        if gained:
            beyond = self.steps[self.kept_steps :]
            self.steps[self.kept_steps :] = [replace(step, taken_back=True) for step in beyond]
            self.objective.proposer.reopen()
        return gained

    def _forget(self) -> None:
        """Forget what was measured: the network has changed."""
        self._ranking = None
        self.oracle.forget()

    def _measure(self, state: State) -> Measured:
        """Return what the oracle says of what the metrics propose."""
        metrics = self.settings.metrics or default_metrics(repaired=bool(state.moments))
        propose = partial(self.objective.proposer.propose, state.groups)
        ranking = self._ranking
        if ranking is None or not ranking.settled(propose):
            again = rank(state, self.images, metrics, self._losses, propose)
            # of one state the oracle must see the images in one order
            ranking = again if ranking is None else replace(again, losses=ranking.losses)
        self._ranking, self._losses = ranking, ranking.losses
        proposals = propose(ranking.scores)
        savings = self.objective.savings(state, proposals)
        measured, chosen = self.oracle.measure(state, proposals, ranking.losses, savings)
        return Measured(ranking.loss, proposals, savings, measured, chosen)

    def _take_step(self, state: State) -> tuple[Step, State] | None:
        """Return the best step from a state and where it leads; None if nothing can go."""
        started, number = time.perf_counter(), len(self.steps) + 1
        found = from_plain(self.journal.once("oracle", lambda: self._measure(state).as_plain()))
        self.oracle.remember(found.proposals, found.sensitivities)
        if found.chosen is None:
            return None
        best, nats = found.proposals[found.chosen], [s.nats for s in found.sensitivities]
        self.objective.learn(state, found.proposals, found.savings, nats)
        following, drop, done = self._judge(state.without(best.units), number)
        within = drop.upper_points <= self.settings.max_drop
        smaller = not within and self.objective.proposer.narrow(state.groups, best)
        return make_step(
            self.original,
            following.model,
            drop,
            candidates_of(state.groups, found),
            number=number,
            chosen=found.chosen,
            calibration_loss=found.loss + nats[found.chosen],
            within_budget=within,
            taken_back=smaller,
            seconds=self.journal.once(STEP, partial(_seconds_since, started)),
            recovered_by=tuple(done),
        ), following

    def _judge(self, state: State, number: int) -> tuple[State, Drop, list[str]]:
        """Return a state after recovery where that is worth while, its drop, and what was done."""
        drop = self.recovery.measure_drop(state)
        last = self.objective.proposer.narrowing
        return self.recovery.after_step(state, drop, number, last=last)

    def _exchange(self) -> bool:
        """Try to go on where every group is closed: some give back what lets others lose more.

        Return whether that fits the budget; the state kept is then the one after it.
        """
        if not self.objective.proposer.narrowing or self.kept.tuned or not self.kept_steps:
            return False
        groups, left = self.first.groups, [group.original_units for group in self.kept.groups]
        savings = partial(self.objective.savings, self.first)
        loss = mean_loss(self.kept.running, self.images, self.kept.task)
        for one in propose_exchanges(groups, left, self.steps, self.kept_steps, savings):
            started, number = time.perf_counter(), len(self.steps) + 1
            state, drop, done = self._judge(self.first.without(one.units), number)
            within = drop.upper_points <= self.settings.max_drop
            after = mean_loss(state.running, self.images, state.task)
            step = make_step(
                self.original,
                state.model,
                drop,
                [replace(one.taken, sensitivity=after - loss)],
                number=number,
                chosen=0,
                calibration_loss=after,
                within_budget=within,
                taken_back=not within,
                seconds=self.journal.once(STEP, partial(_seconds_since, started)),
                recovered_by=tuple(done),
                given_back=one.given_back.channels,
            )
            self.steps.append(step)
            self.progress(step)
            if within:
                self.kept, self.kept_drop, self.kept_steps = state, drop, number
                self.finished_by = []
                self.objective.proposer.reopen()
                return True
        return False


def _seconds_since(started: float) -> float:
    return time.perf_counter() - started
