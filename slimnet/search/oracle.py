"""The oracle: the change of the loss when channels really go (sensitivity; paper, eq. 6).

A candidate is measured as it would be shipped: with its consumers repaired, unless the repair is
switched off, which is the paper's method. Images come hardest first, because nearly all of a
change of the loss happens on those, and a candidate that cannot win any more is dropped.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Mapping, Sequence
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
from slimnet.search.cost import price
from slimnet.search.layout import Images
from slimnet.search.proposals import Proposal
from slimnet.search.race import still_open
from slimnet.search.recording import Recording
from slimnet.search.resting import Resting, far_dearer
from slimnet.search.state import State
from slimnet.search.trial import Trial, make_trial, trace_state

MOST_ELEMENTS = 2**26


class Oracle:
    """Measures the proposals of one search, always on the same calibration images.

    ``calls`` are those of the modules of the networks that run, in order. ``recording`` is of the
    state that began last, where glances leave something in it.
    """

    def __init__(self, state: State, calibration: Split) -> None:
        self._task = state.task
        self._batches, self._images = calibration.batches, calibration.images
        self.calls, self._replayed = trace_state(state, calibration.batches)
        self.recording = Recording(self.calls, state.groups)
        self._losses_before: list[Tensor] = []
        self._changes: dict[Hashable, list[Tensor]] = {}
        self._batches_raced: dict[Hashable, int] = {}
        self._sensitivities: dict[Hashable, Sensitivity] = {}
        self._resting = Resting()
        self._resting.begin(state)

    def begin(self, state: State) -> None:
        """Take note that another state comes."""
        self.recording.begin()
        self._losses_before.clear()
        self._changes.clear()
        self._batches_raced.clear()
        self._sensitivities.clear()
        self._resting.begin(state)

    def remember(self, proposals: Sequence[Proposal], sensitivities: Sequence[Sensitivity]) -> None:
        """Take note of what was measured of the state that began last, in whichever run."""
        for proposal, sensitivity in zip(proposals, sensitivities, strict=True):
            self._sensitivities[proposal.key] = sensitivity
        # of what has been measured an interrupted run would know no more than that
        self._batches_raced.clear()
        self._resting.note(proposals, sensitivities)

    def measure(
        self,
        state: State,
        proposals: Sequence[Proposal],
        losses: Tensor,
        savings: Sequence[float],
    ) -> tuple[list[Sensitivity], int | None]:
        """Return the sensitivity of each proposal, and which one costs least for what it saves.

        The state is as it was when this returns. None wins where no loss is a number.

        Args:
            state: the network as it stands. What was measured of it already is not run again.
            proposals: what might go.
            losses: of each calibration image, about what they are now, (images,), in nats.
            savings: what each proposal saves; the lowest sensitivity for it wins, and only
                proposals that cannot win are measured on fewer images than the others, or none.
        """
        loss = float(losses.mean())
        resting = self._resting.too_dear(proposals, savings, loss)
        live, best = [i for i in range(len(proposals)) if i not in resting], None
        # who rests on an old price is woken where the winner is not cheap enough to leave it behind
        while live:
            best = self._race(state, proposals, losses, savings, live)
            lowest = math.inf
            if best is not None:
                nats = self._sensitivity(proposals[best]).nats
                lowest = price(nats, savings[best])
            woken = [i for i, n in resting.items() if not far_dearer(n, savings[i], lowest, loss)]
            if not woken:
                break
            for i in woken:
                del resting[i]
            live = [*woken, *([] if best is None else [best])]
        measured = [
            Sensitivity(resting[i], 0) if i in resting else self._sensitivity(proposal)
            for i, proposal in enumerate(proposals)
        ]
        return measured, best

    def _race(
        self,
        state: State,
        proposals: Sequence[Proposal],
        losses: Tensor,
        savings: Sequence[float],
        live: Sequence[int],
    ) -> int | None:
        """Measure those of these numbers until one has won, and return it. See ``measure``."""
        seen = [self._changes.setdefault(proposal.key, []) for proposal in proposals]
        trials = _Trials(state, proposals, self.calls, self._replayed)
        batches, order, falling = self._hardest_first(losses)
        losses, live, passed = losses[order], list(live), 0
        with torch.inference_mode(), Replay(state.running, self.calls) as replay:
            for number, batch in enumerate(batches):
                missing = [i for i in live if len(seen[i]) <= number]
                run = partial(self._losses, state.running, batch)
                before, changes = loss_changes(
                    state.running,
                    replay,
                    [trials[i] for i in missing],
                    run,
                    self.recording.outputs(number),
                )
                for i, change in zip(missing, changes, strict=True):
                    seen[i].append(change)
                if number == len(self._losses_before):
                    self._losses_before.append(before)
                for key in (proposals[i].key for i in live):
                    self._batches_raced[key] = max(number + 1, self._batches_raced.get(key, 0))
                images = self._task.images(batch)
                # those given may be a little older
                losses[passed : passed + images] = self._losses_before[number]
                passed += images
                if falling or passed == self._images:
                    known = [changes[: number + 1] for changes in seen]
                    live = still_open(
                        live, known, savings, losses,
                        likelihoods=isinstance(self._task, Classification),
                    )  # fmt: skip
                    if len(live) < 2:
                        break
        return next(iter(live), None)

    def losses_without(self, proposal: Proposal, losses: Tensor) -> Tensor:
        """Return about what the losses are once a proposal has gone, (images,), in nats.

        It has been measured since ``remember``. They are as measured then, and as in ``losses``,
        with which it was, for the images left out.
        """
        batches = self._batches_raced[proposal.key]
        changes = self._changes[proposal.key][:batches]
        measured = list(map(torch.add, self._losses_before, changes))
        images = sum(map(len, measured))
        _, order, _ = self._hardest_first(losses)
        return losses.index_copy(0, order[:images], torch.cat(measured))

    def _losses(self, model: nn.Module, batch: Any) -> Tensor:
        """Return the loss of each image, (images,) float64, in nats."""
        return self._task.losses(model, batch).double()

    def _hardest_first(self, losses: Tensor) -> tuple[Batches, Tensor, bool]:
        """Return the images, their numbers in that order, and whether they come hardest first.

        They do where they are all in memory. Those recorded come before all others: they were the
        hardest by what was known before the glance.
        """
        if not isinstance(self._batches, Images):
            return self._batches, torch.arange(len(losses)), False
        recorded = self.recording.order
        order = torch.argsort(losses, descending=True, stable=True)
        order = torch.cat([recorded, order[~torch.isin(order, recorded)]])
        return self._batches.ordered(order), order, True

    def _sensitivity(self, proposal: Proposal) -> Sensitivity:
        """Return what was measured of a proposal, in this run or before on more images."""
        changes = self._changes[proposal.key]
        images = sum(len(change) for change in changes)
        known = self._sensitivities.get(proposal.key)
        if known is not None and known.images > images:
            return known
        total = sum(float(change.sum()) for change in changes) / self._images
        nats = total if math.isfinite(total) else math.inf
        return Sensitivity(nats, images)


def loss_changes(
    model: nn.Module,
    replay: Replay,
    trials: Sequence[Trial],
    run: Callable[[], Tensor],
    known: Mapping[int, Tensor] | None = None,
) -> tuple[Tensor, list[Tensor]]:
    """Return the losses that ``run`` gives and by how much each trial changes them, (images,) each.

    Without trials it does not run. ``known`` are outputs of it, by call.
    """
    if not trials:
        return torch.empty(0), []
    before = replay.record(run, {trial.start for trial in trials}, known)
    changes = []
    for trial in trials:
        with replaced(model, trial.values):
            changes.append(replay.run(run, trial.start) - before)
    return before, changes


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
