"""The accuracy of states on the selection images, and the recovery of accuracy that was lost."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

from slimnet.execution import VersionRunner, first_call
from slimnet.options import ESTIMATE, BudgetOptions, RecoveryOptions
from slimnet.records import (
    CLASSIFIER,
    FINE_TUNING,
    NORM_STATISTICS,
    REFIT,
    Drop,
    FineTuning,
    Split,
)
from slimnet.repair import TeacherOutputs
from slimnet.search.state import State

REFIT_POINTS = 1.5
"""A state that breaks the budget by more points is not refitted during the search. A guess: a refit
seldom gives back more, and it takes as long as many steps."""

REFIT_EVERY = 8
"""Steps after a refit in which no other is tried, unless it is the last chance of a step. A guess,
for the same reason."""


@dataclass(frozen=True)
class EvaluatedState:
    """A state, its drop on the selection split, and the recoveries that helped it."""

    state: State
    drop: Drop
    recovered_by: tuple[str, ...] = ()

    def is_within(self, max_drop: float) -> bool:
        """Return whether the dropis within a budget in percentage points."""
        return self.drop.points <= max_drop


@dataclass
class Recovery:
    """Brings states back within the budget by refitting, norm statistics and fine-tuning.

    States are not changed. ``fine_tunings`` records every round by the number of its step.

    Args:
        teacher: the original network and the outputs of its layers on some calibration images.
        quick_teacher: the same on fewer of them.
        calibration: all calibration images: seven in eight train, the others are held out.
        options: the budget, the repair and the fine-tuning.
        measure_drop: returns the drop of a state on the selection split.
    """

    teacher: TeacherOutputs
    quick_teacher: TeacherOutputs
    calibration: Split
    options: RecoveryOptions
    measure_drop: Callable[[State], Drop]
    fine_tunings: dict[int, FineTuning] = field(default_factory=dict)
    _refitted_at: int | None = None

    def after_round(self, state: State, number: int) -> EvaluatedState:
        """Return the state after step ``number``, refitted and evaluated.

        It is refitted on few images first, and on all, with its classifier fitted to labels, if
        only that may bring it within the budget. It is fine-tuned too, where that is due.
        """
        found = EvaluatedState(state, self.measure_drop(state))
        if self._can_refit(state):
            found = self._better(found, state.refitted(self.quick_teacher), REFIT)
            more = self.teacher.images > self.quick_teacher.images
            if more and 0 < self._excess_points(found) <= REFIT_POINTS:
                found = self._better(found, state.refitted(self.teacher), REFIT)
            if 0 < self._excess_points(found) <= REFIT_POINTS:
                fitted = found.state.with_classifier_fitted(self.teacher)
                found = self._better(found, fitted, CLASSIFIER)
        return self._tuned(found, number)

    def after_step(self, state: State, number: int, *, last: bool = False) -> EvaluatedState:
        """Return the state after step ``number``, evaluated, and recovered where that may help.

        Refitting and fine-tuning take as long as many steps. A state is refitted if it breaks the
        budget by at most REFIT_POINTS, and if no other was refitted in the last REFIT_EVERY steps.
        With ``last`` it is refitted in any case: this step is undone if it breaks the budget. A
        state is fine-tuned every ``finetune_every`` steps, and if it breaks the budget, unless the
        step before was fine-tuned.
        """
        found = EvaluatedState(state, self.measure_drop(state))
        if self._worth_refitting(found, number, last):
            self._refitted_at = number
            found = self._better(found, state.refitted(self.teacher), REFIT)
        return self._tuned(found, number)

    def at_the_end(self, best: EvaluatedState, number: int) -> EvaluatedState:
        """Return the best state after every recovery was tried, each kept if it does no harm."""
        found = replace(best, recovered_by=())
        if self._can_refit(found.state):
            state = found.state
            if self.teacher.images > self.quick_teacher.images:
                # the last refit may have been a quick one
                state = replace(state, plan_at_last_refit=None)
            found = self._better(found, state.refitted(self.teacher), REFIT)
        if self.options.repair:
            fitted = found.state.with_classifier_fitted(self.teacher)
            found = self._better(found, fitted, CLASSIFIER)
            recalibrated = found.state.with_norms_recalibrated(self.teacher)
            found = self._better(found, recalibrated, NORM_STATISTICS)
        if self.options.finetune_epochs and number not in self.fine_tunings:
            found = self._better(found, self._finetune(found.state, number), FINE_TUNING)
        return found

    def _tuned(self, found: EvaluatedState, number: int) -> EvaluatedState:
        """Return the state fine-tuned where that is due."""
        if self._worth_tuning(number, self._excess_points(found) > 0):
            found = self._better(found, self._finetune(found.state, number), FINE_TUNING)
        return found

    def _better(self, found: EvaluatedState, recovered: State | None, by: str) -> EvaluatedState:
        """Return the recovered state if its drop is no larger, else the one that there was."""
        if recovered is None:
            return found
        drop = self.measure_drop(recovered)
        if drop.points > found.drop.points:
            return found
        recovered_by = tuple(dict.fromkeys((*found.recovered_by, by)))
        return EvaluatedState(recovered, drop, recovered_by)

    def _excess_points(self, found: EvaluatedState) -> float:
        return found.drop.points - self.options.max_drop

    def _can_refit(self, state: State) -> bool:
        return self.options.repair and not state.tuned

    def _worth_refitting(self, found: EvaluatedState, number: int, last: bool) -> bool:
        again = last or self._refitted_at is None or number - self._refitted_at > REFIT_EVERY
        near = 0 < self._excess_points(found) <= REFIT_POINTS
        return self._can_refit(found.state) and near and again

    def _worth_tuning(self, number: int, broken: bool) -> bool:
        since = number - max(self.fine_tunings, default=0)
        due = since >= self.options.finetune_every
        just_tuned = since <= 1
        return bool(self.options.finetune_epochs) and (due or (broken and not just_tuned))

    def _finetune(self, state: State, number: int) -> State | None:
        options = self.options
        tuned, record = state.finetuned(
            self.teacher.original, self.calibration, options, options.seed + number
        )
        self.fine_tunings[number] = record
        return tuned


class AccuracyEvaluator:
    """Evaluates states on the selection images, re-running from the first changed layer.

    One step changes few layers. The outputs of the layers before them are cached, by batch, from
    the state evaluated before. States are not changed.

    Args:
        original: the task's measurement of the original network on the selection split.
        selection: the split.
        options: the budget.
        first: the state before the search; it says where versions of the network begin to differ.
    """

    def __init__(
        self, original: Any, selection: Split, options: BudgetOptions, first: State
    ) -> None:
        self._original, self._selection = original, selection
        # a state this far beyond the budget is not recovered: an estimate of its drop is enough
        self._limit = options.max_drop + REFIT_POINTS
        running = first.running
        starts = {
            first_call(running.calls, {m.module for m in group.members}) for group in first.groups
        }
        self._versions = VersionRunner(starts, running.memory.activations)

    def drop(self, state: State) -> Drop:
        """Return the drop of a state; one far above the budget is an estimate on some images."""
        with self._versions.version(state.running) as call:
            return state.task.evaluate_drop(
                self._original,
                state.running.folded_model,
                self._selection,
                ESTIMATE,
                self._limit,
                call,
            )
