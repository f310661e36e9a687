"""The full oracle: the change of the loss when every single unit is removed alone.

The search asks the oracle only for what metrics propose. Here it judges the metrics themselves.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from statistics import median

import torch
from torch import Tensor

from slimnet.groups import Group, plan_for
from slimnet.records import OracleProgress, Split
from slimnet.recover import replaced
from slimnet.recover.replay import Replay
from slimnet.search.oracle import loss_changes
from slimnet.search.state import State
from slimnet.search.trial import Trial, make_trial, trace_state

MOST_ELEMENTS = 2**24
MOST_TRIALS = 64
MOST_GROUPS_TIMED = 16
UNITS_TIMED = 3


@dataclass(frozen=True)
class Removals:
    """What the removal of each unit does to the mean loss, (units,) float64 in nats, in order.

    ``nats`` is on all images, ``halves`` (2, units) on one half of them and on the other, drawn at
    random. What is no number is inf.
    """

    nats: Tensor
    halves: Tensor


class FullOracle:
    """Removes units one at a time, on the same images; ``state`` is as before after each call.

    Trials are repaired where the state has moments. At most ``MOST_ELEMENTS`` of their weights
    and the outputs of one batch are in memory at once.
    """

    def __init__(self, state: State, calibration: Split, seed: int) -> None:
        self._state, self._seed = state, seed
        self._batches, self._images = calibration.batches, calibration.images
        self._calls, self._replayed = trace_state(state, calibration.batches)

    def expected_seconds(self, units: Sequence[Tensor]) -> float:
        """Return about how long ``measure`` will take, from a few units of some groups."""
        asked = [(g, u) for g, u in zip(self._state.groups, units, strict=True) if len(u)]
        timed = asked[:: -(-len(asked) // MOST_GROUPS_TIMED)]
        with torch.inference_mode(), Replay(self._state.running, self._calls) as replay:
            # the first run of a network is slower than all others
            replay.record(self._losses(next(iter(self._batches))), {0})
            spent = sum(self._expected_seconds(replay, *one) for one in timed)
        return spent * sum(map(len, units)) / sum(len(chosen) for _, chosen in timed)

    def _expected_seconds(self, replay: Replay, group: Group, units: Tensor) -> float:
        """Return about how long these units of one group will take, from the first few of them."""
        batch = next(iter(self._batches))
        batches, run = self._images / self._state.task.images(batch), self._losses(batch)
        timed = [self._timed(replay, group, unit[None], run) for unit in units[:UNITS_TIMED]]
        making, recording, running = map(median, zip(*timed, strict=True))
        chunks = -(-len(units) // MOST_TRIALS)
        seconds: float = len(units) * (making + batches * running) + chunks * batches * recording
        return seconds

    def _timed(
        self, replay: Replay, group: Group, unit: Tensor, run: Callable[[], Tensor]
    ) -> tuple[float, float, float]:
        """Return the seconds of making one trial, of recording a batch, and of the trial on it."""
        begun = time.perf_counter()
        trial = self._trial(group, unit)
        made = time.perf_counter()
        replay.record(run, {trial.start})
        recorded = time.perf_counter()
        with replaced(self._state.running, trial.values):
            replay.run(run, trial.start)
        return made - begun, recorded - made, time.perf_counter() - recorded

    def measure(
        self, units: Sequence[Tensor], progress: Callable[[OracleProgress], None]
    ) -> Removals:
        """Return what each of ``units[i]`` of group i costs alone, group by group."""
        found, total = [], sum(map(len, units))
        done = 0
        with torch.inference_mode(), Replay(self._state.running, self._calls) as replay:
            for group, chosen in zip(self._state.groups, units, strict=True):
                for trials in self._chunks(group, chosen):

                    def tell(share: float, done: int = done, many: int = len(trials)) -> None:
                        progress(OracleProgress(done + share * many, total))

                    found.append(self._measure(replay, trials, tell))
                    done += len(trials)
        return self._removals(torch.cat(found, 1))

    def _measure(
        self, replay: Replay, trials: Sequence[Trial], tell: Callable[[float], None]
    ) -> Tensor:
        """Return the sums of the changes over one half of the images and the other, (2, trials)."""
        sums = torch.zeros(2, len(trials), dtype=torch.float64)
        passed = 0
        for batch, half in zip(self._batches, self._halves(), strict=False):
            changes = loss_changes(self._state.running, replay, trials, self._losses(batch))
            sums += half @ torch.stack(changes, 1)
            passed += half.shape[1]
            tell(passed / self._images)
        return sums

    def _removals(self, sums: Tensor) -> Removals:
        """Return the means of sums over halves, (2, units)."""
        many = torch.stack([half.sum(1) for half in self._halves()]).sum(0)
        changes = sums.sum(0) / many.sum(), sums / many[:, None]
        return Removals(*(nats.where(nats.isfinite(), torch.inf) for nats in changes))

    def _halves(self) -> Iterator[Tensor]:
        """Yield for each batch which images are in which half, (2, images) of 0 and 1 float64.

        Where a task knows only the loss of whole batches, every second one is in the first half.
        """
        generator = torch.Generator().manual_seed(self._seed)
        task = self._state.task
        for number, batch in enumerate(self._batches):
            images = task.images(batch)
            whole = torch.tensor([number % 2 == 0]).expand(images)
            drawn = torch.rand(images, generator=generator) < 0.5 if task.by_image else whole
            yield torch.stack([drawn, ~drawn]).double()

    def _chunks(self, group: Group, units: Tensor) -> Iterator[list[Trial]]:
        """Yield the trials of the units of one group, as many at once as memory allows."""
        most, made = 1, []
        for unit in units:
            made.append(self._trial(group, unit[None]))
            elements = sum(value.numel() for value in made[0].values.values())
            most = min(MOST_TRIALS, max(1, MOST_ELEMENTS // max(1, elements)))
            if len(made) == most:
                yield made
                made = []
        if made:
            yield made

    def _trial(self, group: Group, unit: Tensor) -> Trial:
        return make_trial(
            self._state,
            plan_for([group], [unit]),
            self._calls,
            consumers_only=group.name in self._replayed,
        )

    def _losses(self, batch: object) -> Callable[[], Tensor]:
        model, task = self._state.running, self._state.task
        return lambda: task.losses(model, batch).double()
