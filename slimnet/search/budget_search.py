"""A search within the budget: remove until nothing more fits, recover, go on if that makes room."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from slimnet.records import Candidate
from slimnet.search.evaluate import CandidateEvaluator
from slimnet.search.recovery import EvaluatedState, Recovery
from slimnet.search.state import State
from slimnet.search.steps import StepRecords

MAX_CONTINUATIONS = 1
"""How often the search goes on from a recovered network, at most. A guess that bounds the time."""


PATH_STATES = 10
"""States in the path for a whole budget, roughly: half a point lies between them if 5 may be lost.
With more, less is lost between the last state that is confirmed and the next one, but each that is
tested costs a refit of all layers."""


@dataclass(frozen=True)
class PathState:
    """A state that the search may end with, before its last recovery.

    ``chain`` are the numbers of the steps that led there. Where ``chosen`` is not empty these
    ``candidates``, from the table of the next step, are gone as well.
    """

    state: State
    chain: tuple[int, ...]
    candidates: Sequence[Candidate] = ()
    chosen: Sequence[int] = ()


@dataclass
class BudgetSearch:
    """One search under way. ``best`` is the last state within the budget, ``steps`` led there.

    With ``keeps_path`` it fills ``path``, from safe to aggressive; see ``SearchPath``.
    """

    evaluator: CandidateEvaluator
    recovery: Recovery
    steps: StepRecords
    max_drop: float
    best: EvaluatedState
    keeps_path: bool
    path: list[PathState] = field(default_factory=list, init=False)

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

    def _add_to_path(
        self,
        state: State,
        chain: tuple[int, ...],
        candidates: Sequence[Candidate] = (),
        chosen: Sequence[int] = (),
    ) -> None:
        """Keep a state, without the inverse Gram matrices, which no later recovery reads."""
        light = replace(state, inverse_grams={})
        self.path.append(PathState(light, chain, candidates, chosen))

    def _recover(self) -> bool:
        """Recover the best state; return whether that makes room for more in the budget."""
        points = self.best.drop.points
        self.best = self.recovery.at_the_end(self.best, self.steps.best_step)
        self.steps.finished_by = self.best.recovered_by
        if self.best.drop.points >= points:
            return False
        self.steps.take_back_rest()
        return True
