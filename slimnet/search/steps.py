"""The records of a search's steps: the only place where they are made, counted and amended."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import replace

from torch import nn

from slimnet.execution import count_conv_weights, count_parameters
from slimnet.groups import Group
from slimnet.records import Candidate, Step
from slimnet.search.evaluate import MeasuredCandidates
from slimnet.search.journal import STEP, Journal
from slimnet.search.recovery import EvaluatedState

NO_FINITE_LOSS = "every remaining candidate makes the loss or the outputs NaN or infinite"


class StepRecords:
    """The steps of a search so far. The one numbered ``best_step`` led to the best state.

    ``finished_by`` names what gave accuracy back to that state after its step was recorded.

    Args:
        original: the network before the search.
        max_drop: the budget in percentage points.
        progress: called with every new step.
        journal: gives a resumed run the seconds that a step took.
    """

    def __init__(
        self,
        original: nn.Module,
        max_drop: float,
        progress: Callable[[Step], None],
        journal: Journal,
    ) -> None:
        self._original, self._max_drop = original, max_drop
        self._progress, self._journal = progress, journal
        self._steps: list[Step] = []
        self.best_step = 0
        self.finished_by: tuple[str, ...] = ()

    @property
    def all(self) -> tuple[Step, ...]:
        """All steps in their order."""
        return tuple(self._steps)

    @property
    def standing(self) -> tuple[int, ...]:
        """The numbers of the steps that led to the best state."""
        return tuple(s.number for s in self._steps[: self.best_step] if not s.taken_back)

    @property
    def next_number(self) -> int:
        """The number that the next step will have."""
        return len(self._steps) + 1

    def add(
        self,
        after: EvaluatedState,
        candidates: Sequence[Candidate],
        chosen: Sequence[int],
        *,
        loss: float,
        started: float,
        taken_back: bool,
    ) -> Step:
        """Record the step that led to ``after``, and return its record.

        ``loss`` is the calibration loss after it in nats: after a removal that of the trial,
        before anything else recovers the network. ``started`` is the clock when it began.
        """
        slim = after.state.model
        step = Step(
            number=self.next_number,
            candidates=tuple(candidates),
            chosen=tuple(chosen),
            channels_removed=sum(
                len(units) for n in chosen for units in candidates[n].channels.values()
            ),
            conv_weights_removed_percent=self._removed_percent(slim, count_conv_weights),
            parameters_removed_percent=self._removed_percent(slim, count_parameters),
            calibration_loss=loss,
            drop=after.drop,
            within_budget=after.is_within(self._max_drop),
            taken_back=taken_back,
            seconds=self._journal.replay_or_run(STEP, lambda: time.perf_counter() - started),
            recovered_by=after.recovered_by,
        )
        self._steps.append(step)
        self._progress(step)
        return step

    def keep_last(self, *, replaces: bool = False) -> None:
        """Make the last step the best; what recovered the state before belongs to its own step.

        With ``replaces`` it is from the same table as the best one so far, which is taken back.
        """
        if replaces:
            best = self._steps[self.best_step - 1]
            self._steps[self.best_step - 1] = replace(best, taken_back=True)
        if self.finished_by:
            best = self._steps[self.best_step - 1]
            recovered_by = (*best.recovered_by, *self.finished_by)
            self._steps[self.best_step - 1] = replace(best, recovered_by=recovered_by)
        self.best_step, self.finished_by = len(self._steps), ()

    def take_back_rest(self) -> None:
        """Mark the steps after the best one as taken back: the search goes on from there."""
        rest = self._steps[self.best_step :]
        self._steps[self.best_step :] = [replace(step, taken_back=True) for step in rest]

    def why_over_budget(self) -> str:
        """Say why the search ended beyond the budget, from the steps after the best one."""
        rest = self._steps[self.best_step :]
        further = [step for step in rest if not step.taken_back] or rest[-1:]
        text = f"the next step would cost {further[0].drop.points:.2f} points"
        if len(further) > 1:
            text += f", and none of the {len(further) - 1} after it came back within the budget"
        return text

    def _removed_percent(self, slim: nn.Module, count: Callable[[nn.Module], int]) -> float:
        whole = count(self._original)
        return 100 * (1 - count(slim) / whole) if whole else 0.0


def candidates_of(groups: Sequence[Group], found: MeasuredCandidates) -> tuple[Candidate, ...]:
    """Return the records of measured candidates of a state, in the original numbering."""
    return tuple(
        Candidate(
            metric=proposal.metric,
            channels={
                group.name: tuple(group.original_units[units].tolist())
                for group, units in zip(groups, proposal.units, strict=True)
                if len(units)
            },
            sensitivity=sensitivity.nats,
            images=sensitivity.images,
        )
        for proposal, sensitivity in zip(found.proposals, found.sensitivities, strict=True)
    )
