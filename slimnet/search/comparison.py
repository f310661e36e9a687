"""Every metric against the full oracle: the order each gives to units, and each unit's cost."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial

import torch
from torch import Tensor

from slimnet.execution import Change, Replay
from slimnet.groups import Group
from slimnet.options import SaliencyOptions
from slimnet.records import OracleProgress, Split
from slimnet.repair import gather_inverse_grams
from slimnet.saliency import (
    GROUP_METRICS,
    METRICS,
    lacks_classes,
    needs_removal_errors,
    read_by,
)
from slimnet.search.evaluate import rank
from slimnet.search.oracle import image_losses
from slimnet.search.state import State


def sample_units(groups: Sequence[Group], sample: int | None, seed: int) -> list[Tensor]:
    """Return the units of each group to measure, sorted int64; all of them without ``sample``.

    They are drawn at random, evenly: every unit has the same chance, and every group gets its
    share, rounded up or down (systematic sampling).
    """
    units = [group.units for group in groups]
    total = sum(units)
    if sample is None or sample >= total:
        return [torch.arange(many) for many in units]
    generator = torch.Generator().manual_seed(seed)
    shuffled = [torch.randperm(many, generator=generator) for many in units]
    start = float(torch.rand(1, generator=generator))
    chosen = torch.zeros(total, dtype=torch.bool)
    chosen[((torch.arange(sample, dtype=torch.float64) + start) * (total / sample)).long()] = True
    parts = torch.split(chosen, units)
    return [order[part].sort().values for order, part in zip(shuffled, parts, strict=True)]


def places_among_all(groups: Sequence[Group], units: Sequence[Tensor]) -> Tensor:
    """Return where these units stand among all units, group by group, int64."""
    starts = torch.tensor([0, *(group.units for group in groups)]).cumsum(0)[:-1]
    return torch.cat([chosen + start for chosen, start in zip(units, starts, strict=True)])


def places_by_group(groups: Sequence[Group], units: Sequence[Tensor]) -> dict[str, Tensor]:
    """Return where the units of each group stand among these units; those without any lack."""
    parts = torch.split(torch.arange(sum(map(len, units))), [len(chosen) for chosen in units])
    return {group.name: own for group, own in zip(groups, parts, strict=True) if len(own)}


MAX_TRIALS = 64
"""Trials that share the recorded outputs of a batch. A guess: one run more in 64 costs little."""


@dataclass(frozen=True)
class Removals:
    """How the removal of each unit changes the mean loss, (units,) float64 in nats, in order.

    ``nats`` is on all images, ``halves`` (2, units) on one half of them and on the other, drawn at
    random. Changes that are no numbers are inf.
    """

    nats: Tensor
    halves: Tensor


class FullOracle:
    """Removes units one at a time, on the same images; ``state`` is as before after each call.

    Trials are repaired where the state has inverse Gram matrices.
    """

    def __init__(self, state: State, calibration: Split, seed: int) -> None:
        self._state, self._seed = state, seed
        self._batches, self._images = calibration.batches, calibration.images

    def measure(
        self, units: Sequence[Tensor], progress: Callable[[OracleProgress], None]
    ) -> Removals:
        """Return the cost of removing each of ``units[i]`` of group i alone, group by group."""
        found, total, done = [], sum(map(len, units)), 0
        with torch.inference_mode(), self._state.running.replay() as replay:
            for number, chosen in enumerate(units):
                for trials in self._chunks(number, chosen):

                    def report(share: float, done: int = done, many: int = len(trials)) -> None:
                        progress(OracleProgress(done + share * many, total))

                    found.append(self._measure(replay, trials, report))
                    done += len(trials)
        return self._removals(torch.cat(found, 1))

    def _measure(
        self, replay: Replay, trials: Sequence[Change], report: Callable[[float], None]
    ) -> Tensor:
        """Return the sums of the changes over one half of the images and the other, (2, trials)."""
        sums, passed = torch.zeros(2, len(trials), dtype=torch.float64), 0
        network, task = self._state.running.folded_model, self._state.task
        for batch, half in zip(self._batches, self._halves(), strict=False):
            run = partial(image_losses, task, network, batch)
            sums += half @ torch.stack(replay.differences(run, network, trials), 1)
            passed += half.shape[1]
            report(passed / self._images)
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
            drawn = task.in_first_half(number, images, generator)
            yield torch.stack([drawn, ~drawn]).double()

    def _chunks(self, group: int, units: Tensor) -> Iterator[list[Change]]:
        """Yield the trials of units of one group, as many at once as the memory budget allows."""
        most, made = 1, []
        for unit in units:
            none = torch.empty(0, dtype=torch.int64)
            gone = [none] * len(self._state.groups)
            gone[group] = unit[None]
            made.append(self._state.trial(gone))
            room = self._state.running.memory.trials // max(1, made[0].nbytes)
            most = min(MAX_TRIALS, max(1, room))
            if len(made) == most:
                yield made
                made = []
        if made:
            yield made


@dataclass(frozen=True)
class Orders:
    """Scores of all units (units,) float64 and seconds by metric, and why others have none."""

    scores: Mapping[str, Tensor]
    seconds: Mapping[str, float]
    left_out: Mapping[str, str]


def order_by_each(
    state: State, calibration: Split, everything: Split, options: SaliencyOptions
) -> tuple[Orders, State]:
    """Score the units by each metric alone; the state is not changed.

    Args:
        state: the whole network, without inverse Gram matrices.
        calibration: the images that metrics see.
        everything: the images that inverse Gram matrices are gathered on, where the repair or a
            metric needs them.
        options: metrics (all of them, if none are named) and repair are read.

    Returns:
        The orders, and the state with the inverse Gram matrices if anything needs them.
    """
    names: Sequence[str] = options.metrics or (*METRICS, *GROUP_METRICS)
    gathering_seconds = 0.0
    if options.repair or needs_removal_errors(names):
        begun = time.perf_counter()
        inverse_grams = gather_inverse_grams(
            state.model, state.groups, everything.batches, everything.images, state.task
        )
        gathering_seconds = time.perf_counter() - begun
        state = replace(state, inverse_grams=inverse_grams)
    scores: dict[str, Tensor] = {}
    seconds: dict[str, float] = {}
    left_out: dict[str, str] = {}
    for name in names:
        if why := _missing(name, state):
            left_out[name] = why
            continue
        begun = time.perf_counter()
        scores[name] = _scores(name, state, calibration)
        seconds[name] = time.perf_counter() - begun
        if needs_removal_errors([name]):
            seconds[name] += gathering_seconds
    return Orders(scores, seconds, left_out), state


def _scores(metric: str, state: State, calibration: Split) -> Tensor:
    """Return the scores of a metric; one of weights alone needs no pass over the images."""
    batches = calibration.batches
    if not read_by([metric]) - {"weight"}:
        batches = [state.task.few(batches)]
    return rank(state, batches, [metric]).scores[metric]


def _missing(metric: str, state: State) -> str:
    """Return why the metric has no scores here, or an empty string."""
    if needs_removal_errors([metric]) and not state.inverse_grams:
        return "no layer that reads removable channels can be repaired, so there are no such errors"
    return lacks_classes(state.task, [metric])
