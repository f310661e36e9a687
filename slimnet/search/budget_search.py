"""A search within the budget: remove until nothing more fits, recover, go on if that makes room."""

from dataclasses import dataclass

from slimnet.search.evaluate import CandidateEvaluator
from slimnet.search.recovery import EvaluatedState, Recovery
from slimnet.search.steps import StepRecords

MAX_CONTINUATIONS = 1
"""How often the search goes on from a recovered network, at most. A guess that bounds the time."""


@dataclass
class BudgetSearch:
    """One search under way. ``best`` is the last state within the budget, ``steps`` led there."""

    evaluator: CandidateEvaluator
    recovery: Recovery
    steps: StepRecords
    max_drop: float
    best: EvaluatedState

    def run(self) -> str:
        """Remove until nothing more fits the budget; return why that is.

        Where recovery makes room in the budget, the search goes on.
        """
        recovered_step = 0
        for _ in range(1 + MAX_CONTINUATIONS):
            ended = self.remove()
            if self.steps.best_step == recovered_step or not self._recover():
                break
            recovered_step = self.steps.best_step
        return ended

    def remove(self) -> str:
        """Remove from the best state on, until nothing more fits; return why that is."""
        raise NotImplementedError

    def _recover(self) -> bool:
        """Recover the best state; return whether that makes room for more in the budget."""
        points = self.best.drop.upper_points
        self.best = self.recovery.at_the_end(self.best, self.steps.best_step)
        self.steps.finished_by = self.best.recovered_by
        if self.best.drop.upper_points >= points:
            return False
        self.steps.take_back_rest()
        return True
