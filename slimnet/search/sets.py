"""The search in steps, with ``--step``: remove the cheapest set of units until the budget ends it.

With sets of one unit, ``--step 1``, this is the paper's scheme (Persand et al. 2020, Algorithm 1).
"""

from __future__ import annotations

import time
from dataclasses import dataclass

from slimnet.search.budget_search import PATH_STATES, BudgetSearch
from slimnet.search.evaluate import MeasuredCandidates
from slimnet.search.recovery import EvaluatedState
from slimnet.search.state import State
from slimnet.search.steps import NO_FINITE_LOSS, candidates_of

PATIENCE = 8
"""The search takes at most this many more steps after one that breaks the budget. Accuracy on a
finite split is noisy, and a later step may be within the budget again. Only single channels get so
far: larger sets are taken back and shrink first. A guess; each costs the time of a step."""


@dataclass
class SetSearch(BudgetSearch):
    """The search in steps.

    ``channels`` is how many units the next set holds, ``max_channels`` the most it may. Sets that
    break the budget are halved, and grow again where one is within it: accuracy on a finite split
    is noisy, and a size that broke the budget once may not break it again.
    """

    max_channels: int

    def __post_init__(self) -> None:
        self.channels, self._kept_points = self.max_channels, 0.0

    def remove(self) -> str:
        """Remove the cheapest sets, from the best state on; return why that ended.

        A step that breaks the budget is taken back where something smaller can be tried.
        """
        state, misses = self.best.state, 0
        while misses <= PATIENCE:
            started = time.perf_counter()
            found = self.evaluator.measure_sets(state, self.channels)
            if not found.best:
                break
            after = self._without(state, found)
            within = after.is_within(self.max_drop)
            smaller = not within and self.channels > 1
            self.steps.add(
                after,
                candidates_of(state.groups, found),
                found.best,
                loss=found.loss + found.sensitivities[found.best[0]].nats,
                started=started,
                taken_back=smaller,
            )
            if smaller:
                self.channels //= 2
                continue
            state, misses = after.state, 0 if within else misses + 1
            if within:
                self.steps.keep_last()
                self.best = after
                self._extend_path()
                self.channels = min(2 * self.channels, self.max_channels)
        if not found.best and found.proposals:
            return NO_FINITE_LOSS
        if misses:
            return self.steps.why_over_budget()
        share = self.evaluator.objective.allowed.max_ratio
        last = "its last channel" if share is None else f"what --max-ratio {share:g} leaves"
        return f"every group is down to {last}"

    def _extend_path(self) -> None:
        """Add the best state to the path. It replaces the last one there if it lost hardly more."""
        if not self.keeps_path:
            return
        points = self.best.drop.points
        if self.path and points <= self._kept_points + self.max_drop / PATH_STATES:
            self.path.pop()
        else:
            self._kept_points = points
        self._add_to_path(self.best.state, self.steps.standing)

    def _without(self, state: State, found: MeasuredCandidates) -> EvaluatedState:
        """Return the state without the best set, recovered where that is worthwhile."""
        after = state.without(found.proposals[found.best[0]].units)
        return self.recovery.after_step(after, self.steps.next_number, last=self.channels > 1)
