"""The oracle: the change of the loss when channels really go (sensitivity; paper, eq. 6).

A candidate is measured as it would be shipped: with its consumers repaired, unless the repair is
switched off, which is the paper's method. Images come hardest first, because nearly all of a
change of the loss happens on those, and a candidate that cannot win any more is dropped.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from slimnet.groups import plan_for
from slimnet.measure import Classification
from slimnet.records import Batches, Sensitivity, Split
from slimnet.recover import replaced
from slimnet.recover.replay import Replay
from slimnet.recover.trace import Call
from slimnet.search.layout import Images
from slimnet.search.proposals import Proposal
from slimnet.search.race import still_open
from slimnet.search.state import State
from slimnet.search.trial import Trial, make_trial, trace_state

MOST_ELEMENTS = 2**26


class Oracle:
    """Measures the proposals of one search, always on the same calibration images.

    ``calls`` are those of the modules of the networks that run, in order.
    """

    def __init__(self, state: State, calibration: Split) -> None:
        self._task = state.task
        self._batches, self._images = calibration.batches, calibration.images
        self.calls, self._replayed = trace_state(state, calibration.batches)

    def measure(
        self,
        state: State,
        proposals: Sequence[Proposal],
        losses: Tensor,
        savings: Sequence[float],
        known: dict[Hashable, list[Tensor]] | None = None,
    ) -> tuple[list[Sensitivity], int | None]:
        """Return the sensitivity of each proposal, and which one costs least for what it saves.

        The state is as it was when this returns. None wins where no loss is a number.

        Args:
            state: the network as it stands.
            proposals: what might go.
            losses: of each calibration image as they are now, (images,), in nats.
            savings: what each proposal saves; the lowest sensitivity for it wins, and only
                proposals that cannot win are measured on fewer images than the others.
            known: changes of the losses by proposal and batch, measured of this very state with
                the same losses; they are not measured again, and what is measured is added.
        """
        changes = {} if known is None else known
        seen = [changes.setdefault(proposal.key, []) for proposal in proposals]
        trials = _Trials(state, proposals, self.calls, self._replayed)
        batches, losses, falling = self._hardest_first(losses)
        live, raced, passed = list(range(len(proposals))), [0] * len(proposals), 0
        with torch.inference_mode(), Replay(state.running, self.calls) as replay:
            for number, batch in enumerate(batches if live else ()):
                missing = [i for i in live if len(seen[i]) <= number]
                run = partial(self._losses, state.running, batch)
                for i, change in zip(
                    missing,
                    loss_changes(state.running, replay, [trials[i] for i in missing], run),
                    strict=True,
                ):
                    seen[i].append(change)
                passed += self._task.images(batch)
                for i in live:
                    raced[i] = number + 1
                if falling or passed == self._images:
                    live = still_open(
                        live, [changes[: number + 1] for changes in seen], savings, losses,
                        likelihoods=isinstance(self._task, Classification),
                    )  # fmt: skip
                    if len(live) < 2:
                        break
        # of no more than this race took, though more may be known
        parts = [changes[:count] for changes, count in zip(seen, raced, strict=True)]
        return [self._sensitivity(part) for part in parts], next(iter(live), None)

    def _losses(self, model: nn.Module, batch: Any) -> Tensor:
        """Return the loss of each image, (images,) float64, in nats."""
        return self._task.losses(model, batch).double()

    def _hardest_first(self, losses: Tensor) -> tuple[Batches, Tensor, bool]:
        """Return the images, their losses in that order, and whether they come hardest first.

        They do where they are all in memory.
        """
        if not isinstance(self._batches, Images):
            return self._batches, losses, False
        order = torch.argsort(losses, descending=True, stable=True)
        return self._batches.ordered(order), losses[order], True

    def _sensitivity(self, changes: Sequence[Tensor]) -> Sensitivity:
        total = sum(float(change.sum()) for change in changes) / self._images
        nats = total if math.isfinite(total) else math.inf
        return Sensitivity(nats, sum(map(len, changes)))


def loss_changes(
    model: nn.Module, replay: Replay, trials: Sequence[Trial], run: Callable[[], Tensor]
) -> list[Tensor]:
    """Return by how much each trial changes the losses that ``run`` gives, (images,) each.

    Without trials it does not run.
    """
    if not trials:
        return []
    before = replay.record(run, {trial.start for trial in trials})
    changes = []
    for trial in trials:
        with replaced(model, trial.values):
            changes.append(replay.run(run, trial.start) - before)
    return changes


class _Trials:
    """The trial of each proposal, made when it is first asked for, and kept if memory allows."""

    def __init__(
        self,
        state: State,
        proposals: Sequence[Proposal],
        calls: Sequence[Call],
        replayed: frozenset[str],
    ) -> None:
        self._state, self._proposals = state, proposals
        self._calls, self._replayed = calls, replayed
        self._made: dict[int, Trial] = {}
        self._elements = 0

    def __getitem__(self, number: int) -> Trial:
        if number in self._made:
            return self._made[number]
        groups, units = self._state.groups, self._proposals[number].units
        touched = {group.name for group, gone in zip(groups, units, strict=True) if len(gone)}
        trial = make_trial(
            self._state,
            plan_for(groups, units),
            self._calls,
            consumers_only=touched <= self._replayed,
        )
        self._elements += sum(value.numel() for value in trial.values.values())
        if self._elements <= MOST_ELEMENTS:
            self._made[number] = trial
        return trial
