"""Recovery: what gives accuracy back beyond the repair of every trial, and when it is tried."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace

from slimnet.records import Drop, FineTuning, Split
from slimnet.recover import Targets, TrainingRecipe
from slimnet.search.state import State
from slimnet.settings import Settings

RESOLVE_POINTS = 1.5
RESOLVE_EVERY = 8

RESOLVED, NORMS, FINE_TUNED = "re-solving", "norm statistics", "fine-tuning"


@dataclass(frozen=True)
class Judged:
    """A state, its drop on the selection split, and what gave accuracy back to it."""

    state: State
    drop: Drop
    recovered_by: tuple[str, ...] = ()


@dataclass
class Recovery:
    """Tries to bring states back within the budget; ``fine_tunings`` holds every round by step.

    Args:
        targets: the original network and what its layers put out on some calibration images.
        calibration: all calibration images: seven in eight train, the others judge.
        settings: max_drop, repair, seed and the dials of the fine-tuning are read.
        measure_drop: of a state, on the selection split.
    """

    targets: Targets
    calibration: Split
    settings: Settings
    measure_drop: Callable[[State], Drop]
    fine_tunings: dict[int, FineTuning] = field(default_factory=dict)
    _resolved_at: int | None = None

    def after_step(self, state: State, number: int, *, last: bool = False) -> Judged:
        """Return a state after step ``number``, judged, with what brings it back if that is tried.

        Re-solving and fine-tuning take as long as many steps: they are tried where the step breaks
        the budget by little, but not again at once, and fine-tuning in any case every few steps.
        ``last`` says that no step as large will be tried if this one breaks the budget: then
        re-solving is tried in any case.
        """
        found = Judged(state, self.measure_drop(state))
        if self._worth_resolving(found, number, last):
            self._resolved_at = number
            found = self._better(found, state.resolved(self.targets), RESOLVED)
        if self._worth_tuning(number, self._excess_points(found) > 0):
            found = self._better(found, self._finetune(found.state, number), FINE_TUNED)
        return found

    def at_the_end(self, kept: Judged, number: int) -> Judged:
        """Return the last state with all that may still help tried, kept where it does no harm."""
        found = replace(kept, recovered_by=())
        if self.settings.repair and not found.state.tuned:
            found = self._better(found, found.state.resolved(self.targets), RESOLVED)
        if self.settings.repair:
            recalibrated = found.state.with_norms_recalibrated(self.targets)
            found = self._better(found, recalibrated, NORMS)
        if self.settings.finetune_epochs and number not in self.fine_tunings:
            found = self._better(found, self._finetune(found.state, number), FINE_TUNED)
        return found

    def _better(self, found: Judged, recovered: State | None, by: str) -> Judged:
        """Return whichever of both has the smaller drop; None is never that."""
        if recovered is None:
            return found
        drop = self.measure_drop(recovered)
        if drop.upper_points > found.drop.upper_points:
            return found
        return Judged(recovered, drop, (*found.recovered_by, by))

    def _excess_points(self, found: Judged) -> float:
        return found.drop.upper_points - self.settings.max_drop

    def _worth_resolving(self, found: Judged, number: int, last: bool) -> bool:
        again = last or self._resolved_at is None or number - self._resolved_at > RESOLVE_EVERY
        near = 0 < self._excess_points(found) <= RESOLVE_POINTS
        return self.settings.repair and not found.state.tuned and near and again

    def _worth_tuning(self, number: int, broken: bool) -> bool:
        since = number - max(self.fine_tunings, default=0)
        every = self.settings.finetune_every
        return bool(self.settings.finetune_epochs) and (since >= every or (broken and since > 1))

    def _finetune(self, state: State, number: int) -> State | None:
        dials = self.settings
        recipe = TrainingRecipe(
            epochs=dials.finetune_epochs,
            optimizer=dials.optimizer,
            learning_rate=dials.learning_rate,
            distill_share=dials.distill,
            norm_scale_l1=dials.norm_scale_l1,
            weight_decay=dials.weight_decay,
            augment=dials.augment,
        )
        tuned, told = state.finetuned(
            self.targets.original, self.calibration, recipe, dials.seed + number
        )
        self.fine_tunings[number] = told
        return tuned
