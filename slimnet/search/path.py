"""The path of a search: the states that it may end with, from safe to aggressive.

The search goes on until its estimate of the drop has used the budget. Which of its states is
shipped is found out afterwards, on images that it never saw. So it keeps the state after each
round, and smaller choices from the same table between them, nearly evenly spaced.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

from torch import nn

from slimnet.load import copied
from slimnet.records import Drop, Plan, PredictedLatency, Trajectory
from slimnet.search.budget_search import BudgetSearch, PathState
from slimnet.search.journal import Journal
from slimnet.search.recovery import EvaluatedState


@dataclass(frozen=True)
class FoundState:
    """A state as it would be shipped.

    ``drop`` is the estimate on the selection images. ``step`` is the number of the last step that
    led to the state, 0 where nothing is gone. ``make_trajectory`` returns its trajectory, with the
    steps of all states that were made until then.
    """

    network: nn.Module
    drop: Drop
    step: int
    make_trajectory: Callable[[], Trajectory]

    @property
    def trajectory(self) -> Trajectory:
        """The trajectory that ends with this state."""
        return self.make_trajectory()


def unchanged_state(
    model: nn.Module, drop: Drop, reason: str, searched: Trajectory | None = None
) -> FoundState:
    """Return a copy of the original network as what was found, and the reason why.

    ``drop`` is that of the original from itself. ``searched`` is the trajectory of a search of
    which nothing is shipped.
    """
    trajectory = searched or Trajectory((), 0, reason, {})
    trajectory = replace(
        trajectory,
        steps=tuple(replace(step, taken_back=True) for step in trajectory.steps),
        kept_steps=0,
        stopped_because=reason,
        plan={},
        predicted=None,
        finished_by=(),
    )
    return FoundState(copied(model), drop, 0, lambda: trajectory)


@dataclass(frozen=True)
class EmptyPath:
    """The path of a search that had nothing to try; ``found`` is the original, and says why."""

    found: FoundState

    def states(self) -> Iterator[FoundState]:
        """Yield nothing."""
        return iter(())

    def last(self) -> FoundState:
        """Return the original."""
        return self.found


@dataclass(frozen=True)
class SearchPath:
    """The states that a search found. ``stopped_because`` says why the search ``ended`` stopped."""

    ended: BudgetSearch
    stopped_because: str
    journal: Journal

    def states(self) -> Iterator[FoundState]:
        """Yield the states from safe to aggressive; each is recovered when it is asked for.

        The order is that in which channels went, and depends on no image but those of calibration
        and selection. Nothing is yielded if nothing went.
        """
        for one in self.ended.path:
            if one.chain != self.ended.steps.standing or one.chosen:
                yield self._recovered(one)
        if self.ended.steps.standing:
            yield self.last()

    def last(self) -> FoundState:
        """Return the state at the end of the search, which removed most."""
        steps, best = self.ended.steps, self.ended.best
        return self._found(best, steps.standing, steps.finished_by)

    def _recovered(self, one: PathState) -> FoundState:
        """Return a state after all recoveries that are tried at the end of a search."""
        started, steps, recovery = time.perf_counter(), self.ended.steps, self.ended.recovery
        number = steps.next_number if one.chosen else one.chain[-1]
        before = EvaluatedState(one.state, recovery.measure_drop(one.state))
        after = recovery.at_the_end(before, number)
        chain, finished_by = one.chain, after.recovered_by
        if one.chosen:
            loss = self.ended.evaluator.mean_loss(after.state)
            steps.add(
                after, one.candidates, one.chosen, loss=loss, started=started, taken_back=False
            )
            chain, finished_by = (*chain, number), ()
        return self._found(after, chain, finished_by)

    def _found(
        self, after: EvaluatedState, chain: tuple[int, ...], finished_by: tuple[str, ...]
    ) -> FoundState:
        """Return a state ready for training, with the trajectory that these steps make.

        The network of the state is changed in place: its parameters may have gradients again.
        """
        slim, plan = after.state.model, after.state.plan
        for parameter in slim.parameters():
            parameter.requires_grad_(parameter.is_floating_point())
            parameter.data = parameter.data.contiguous()
        predicted = self.ended.evaluator.objective.prediction(slim) if chain else None

        def make_trajectory() -> Trajectory:
            return self._trajectory(plan, chain, finished_by, predicted)

        return FoundState(slim, after.drop, chain[-1] if chain else 0, make_trajectory)

    def _trajectory(
        self,
        plan: Plan,
        chain: tuple[int, ...],
        finished_by: tuple[str, ...],
        predicted: PredictedLatency | None,
    ) -> Trajectory:
        """Return the trajectory of a state: all steps, of which those of the chain stand."""
        objective, recovery = self.ended.evaluator.objective, self.ended.recovery
        steps = tuple(
            replace(step, taken_back=True)
            if step.within_budget and step.number not in chain
            else step
            for step in self.ended.steps.all
        )
        return Trajectory(
            steps=steps,
            kept_steps=chain[-1] if chain else 0,
            stopped_because=self.stopped_because,
            plan=plan,
            predicted=predicted,
            finished_by=finished_by,
            fine_tunings=recovery.fine_tunings,
            notes=objective.notes,
            resumed_after_step=self.journal.steps,
            latency_table=objective.table.measured if objective.table else None,
        )
