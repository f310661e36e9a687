"""Recovery: what gives accuracy back beyond the repair of every trial, and when it is tried."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from slimnet.records import Drop, FineTuning, Split
from slimnet.recover import Targets, TrainingRecipe
from slimnet.search.state import State
from slimnet.settings import Settings

RESOLVE_POINTS = 1.5
RESOLVE_EVERY = 8

RESOLVED, NORMS, FINE_TUNED = "re-solving", "norm statistics", "fine-tuning"


@dataclass
class Recovery:
    """Tries to bring states back within the budget; ``fine_tunings`` holds every round by step.

    Args:
        targets: the original network and what its layers put out on some calibration images.
        calibration: all calibration images, to train on.
        settings: max_drop, repair, seed and the dials of the fine-tuning are read.
        measure_drop: of a state, on the selection split.
    """

    targets: Targets
    calibration: Split
    settings: Settings
    measure_drop: Callable[[State], Drop]
    fine_tunings: dict[int, FineTuning] = field(default_factory=dict)
    _resolved_at: int | None = None

    def after_step(
        self, state: State, drop: Drop, number: int, *, last: bool = False
    ) -> tuple[State, Drop, list[str]]:
        """Return a state and its drop after step ``number``, and what was done to it.

        Re-solving and fine-tuning take as long as many steps: they are tried where the step breaks
        the budget by little, but not again at once, and fine-tuning in any case every few steps.
        ``last`` says that no step as large will be tried if this one breaks the budget: then
        re-solving is tried in any case.
        """
        done = []
        excess = drop.upper_points - self.settings.max_drop
        if self._worth_resolving(state, excess, number, last):
            self._resolved_at = number
            state, drop, better = self._better(state, drop, state.resolved(self.targets))
            done += [RESOLVED] * better
        if self._worth_tuning(number, drop.upper_points > self.settings.max_drop):
            state, drop, better = self._better(state, drop, self._finetune(state, number))
            done += [FINE_TUNED] * better
        return state, drop, done

    def at_the_end(self, state: State, drop: Drop, number: int) -> tuple[State, Drop, list[str]]:
        """Return the last state with everything tried once more, kept where it does no harm."""
        done = []
        if self.settings.repair and not state.tuned:
            state, drop, better = self._better(state, drop, state.resolved(self.targets))
            done += [RESOLVED] * better
        if self.settings.repair:
            recalibrated = state.with_norms_recalibrated(self.targets)
            state, drop, better = self._better(state, drop, recalibrated)
            done += [NORMS] * better
        if self.settings.finetune_epochs and number not in self.fine_tunings:
            state, drop, better = self._better(state, drop, self._finetune(state, number))
            done += [FINE_TUNED] * better
        return state, drop, done

    def _better(
        self, state: State, drop: Drop, recovered: State | None
    ) -> tuple[State, Drop, bool]:
        """Return whichever of both has the smaller drop, its drop, and whether it recovered."""
        if recovered is None:
            return state, drop, False
        after = self.measure_drop(recovered)
        better = after.upper_points <= drop.upper_points
        return (recovered, after, True) if better else (state, drop, False)

    def _worth_resolving(self, state: State, excess_points: float, number: int, last: bool) -> bool:
        again = last or self._resolved_at is None or number - self._resolved_at > RESOLVE_EVERY
        near = 0 < excess_points <= RESOLVE_POINTS
        return self.settings.repair and not state.tuned and near and again

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
