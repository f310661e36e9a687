"""The search in steps: remove the cheapest set of units, again and again, until the budget ends it.

With sets of one unit, ``--step 1``, this is the paper's scheme (Persand et al. 2020, Algorithm 1).
"""

from __future__ import annotations

import time
from dataclasses import dataclass

from slimnet.search.evaluate import CandidateEvaluator, MeasuredCandidates
from slimnet.search.recovery import EvaluatedState, Recovery
from slimnet.search.state import State
from slimnet.search.steps import NO_FINITE_LOSS, StepRecords, candidates_of

PATIENCE = 8
"""The search takes at most this many more steps after one that breaks the budget. Accuracy on a
finite split is noisy, and a later step may be within the budget again. Only single channels get so
far: larger sets are taken back and shrink first. A guess; each costs the time of a step."""

MAX_CONTINUATIONS = 5
"""How often the search goes on from a recovered network, at most. A guess that bounds the time."""


@dataclass
class SetSearch:
    """One search under way. ``best`` is the last state within the budget, ``steps`` led there.

    ``channels`` is how many units the next set holds, ``max_channels`` the most it may. Sets that
    break the budget are halved, and grow again where one is within it: accuracy on a finite split
    is noisy, and a size that broke the budget once may not break it again.
    """

    evaluator: CandidateEvaluator
    recovery: Recovery
    steps: StepRecords
    max_drop: float
    best: EvaluatedState
    max_channels: int

    def run(self) -> str:
        """Remove until nothing more fits the budget; return why that is.

        Where recovery makes room in the budget, the search goes on.
        """
        recovered_step, channels = 0, self.max_channels
        for _ in range(1 + MAX_CONTINUATIONS):
            ended, channels = self._remove(channels)
            if self.steps.best_step == recovered_step or not self._recover():
                break
            recovered_step = self.steps.best_step
        return ended

    def _remove(self, channels: int) -> tuple[str, int]:
        """Remove the cheapest sets, from the best state on; return why that ended, and their size.

        A step that breaks the budget is taken back where something smaller can be tried.
        """
        state, misses = self.best.state, 0
        while misses <= PATIENCE:
            started = time.perf_counter()
            found = self.evaluator.measure_sets(state, channels)
            if not found.best:
                break
            after = self._without(state, found, channels)
            within = after.is_within(self.max_drop)
            smaller = not within and channels > 1
            self.steps.add(
                after,
                candidates_of(state.groups, found),
                found.best,
                loss=found.loss + found.sensitivities[found.best[0]].nats,
                started=started,
                taken_back=smaller,
            )
            if smaller:
                channels //= 2
                continue
            state, misses = after.state, 0 if within else misses + 1
            if within:
                self.steps.keep_last()
                self.best = after
                channels = min(2 * channels, self.max_channels)
        if not found.best and found.proposals:
            return NO_FINITE_LOSS, channels
        if misses:
            return self.steps.why_over_budget(), channels
        share = self.evaluator.objective.allowed.max_ratio
        last = "its last channel" if share is None else f"what --max-ratio {share:g} leaves"
        return f"every group is down to {last}", channels

    def _without(self, state: State, found: MeasuredCandidates, channels: int) -> EvaluatedState:
        """Return the state without the best set, recovered where that is worthwhile."""
        after = state.without(found.proposals[found.best[0]].units)
        return self.recovery.after_step(after, self.steps.next_number, last=channels > 1)

    def _recover(self) -> bool:
        """Recover the best state; return whether that makes room for more in the budget."""
        points = self.best.drop.upper_points
        self.best = self.recovery.at_the_end(self.best, self.steps.best_step)
        self.steps.finished_by = self.best.recovered_by
        if self.best.drop.upper_points >= points:
            return False
        self.steps.take_back_rest()
        return True
