"""The oracle: it measures the change of the loss when channels go (sensitivity; paper, eq. 6).

A candidate is measured as it would be shipped: with its consumers repaired, unless the repair is
switched off, which is the paper's method. Candidates run a race over the images. The hardest images
come first, because the loss changes mostly on them. A candidate is eliminated once its best
possible cost exceeds another's likely worst.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from slimnet.data import hardest_first
from slimnet.execution import Change
from slimnet.records import Sensitivity, Split
from slimnet.search.candidates import Proposal
from slimnet.search.objective import cost_factor, cost_per_saving
from slimnet.search.state import State
from slimnet.tasks import Classification, Task

SAFETY = 8.0
"""Measured on 240 steps of ResNet-20 with six draws of images: the race eliminated the true winner
6 times at 6, 5 times at 8 and 3 times at 32. Each time the removal of one channel changed the
answer on images that the network had been sure of."""

MAX_LOSS = 20.0
MIN_ODDS = 1e-12
"""Both keep odds finite: a loss of 20 nats is a probability of 2e-9."""


def surviving_candidates(
    live: Sequence[int],
    seen: Sequence[Sequence[Tensor]],
    savings: Sequence[float],
    losses: Tensor,
    *,
    likelihoods: bool,
) -> list[int]:
    """Return the candidates that may still have the lowest cost per saving over all images.

    A candidate is eliminated once its best possible cost exceeds another's likely worst, or once
    changes as large as on the last batch cannot turn the order. The first rule needs likelihoods.

    Args:
        live: the numbers of the candidates that are not eliminated yet.
        seen: by candidate, the changes of the losses on each batch so far, (images,) each.
        savings: how much each candidate saves.
        losses: of all images before any change, (images,) in nats, in the order in which they are
            run. They fall from image to image, unless all images were run.
        likelihoods: whether the losses are -log p of the right answer.
    """
    changes = {i: torch.cat(list(seen[i])) for i in live}
    totals = {i: float(change.sum()) for i, change in changes.items()}
    numbers = [i for i in live if math.isfinite(totals[i])]
    if not numbers:
        return []
    factors = torch.tensor([cost_factor(totals[i], savings[i]) for i in numbers]).double()
    costs = torch.tensor([totals[i] for i in numbers]).double() * factors
    leader = int(costs.argmin())
    passed = sum(len(change) for change in seen[numbers[leader]])
    before, rest = losses[:passed].double(), losses[passed:].double()
    last = torch.stack([seen[i][-1] for i in numbers]) * factors[:, None]
    # losses fall, so later changes are mostly smaller than the last ones
    possible = costs - costs[leader] <= len(rest) * (last - last[leader]).abs().mean(1)
    if likelihoods:
        sizes = [len(batch) for batch in seen[numbers[leader]]]
        rises = _likely_rises(torch.stack([changes[i] for i in numbers]), sizes, before, rest)
        # no loss falls below zero, and a total that changes its sign has another factor
        gain = float(rest.clamp_min(0).sum())
        best = [cost_per_saving(totals[i] - gain, savings[i]) for i in numbers]
        worst = [
            cost_per_saving(totals[i] + rise, savings[i])
            for i, rise in zip(numbers, rises.tolist(), strict=True)
        ]
        possible &= torch.tensor([cost <= min(worst) for cost in best])
    possible[leader] = True
    return [i for i, may_win in zip(numbers, possible.tolist(), strict=True) if may_win]


def _likely_rises(changes: Tensor, sizes: list[int], before: Tensor, rest: Tensor) -> Tensor:
    """Return by how much each candidate may raise the summed losses of the images left, in nats.

    A change of the class scores multiplies the odds of a wrong answer, (1 - p) / p, however small
    they are, and the loss changes by no more than the odds. The factor is taken from the batch
    where it was largest, since one image may lose much among many that lose nothing.
    ``changes`` (candidates, images) came in batches of these ``sizes``.
    """
    growth = (_odds(before + changes) / _odds(before).clamp_min(MIN_ODDS) - 1).abs()
    batches = torch.split(growth, sizes, dim=1)
    largest = torch.stack([batch.mean(1) for batch in batches]).amax(0)
    return SAFETY * largest * _odds(rest).sum()


def _odds(losses: Tensor) -> Tensor:
    """Return the odds of a wrong answer from cross-entropies in nats, -log p."""
    return torch.expm1(losses.clamp(0, MAX_LOSS))


def image_losses(task: Task, network: nn.Module, batch: Any) -> Tensor:
    """Return the loss of each image, (images,) float64, in nats; the network is not changed."""
    return task.losses(network, batch).double()


class Oracle:
    """Measures the candidates of one search, always on the same calibration images."""

    def __init__(self, state: State, calibration: Split) -> None:
        self._task = state.task
        self._batches, self._images = calibration.batches, calibration.images

    def measure(
        self,
        state: State,
        proposals: Sequence[Proposal],
        losses: Tensor,
        savings: Sequence[float],
        known: dict[Hashable, list[Tensor]] | None = None,
    ) -> tuple[list[Sensitivity], int | None]:
        """Return the sensitivity of each candidate, and the number of the cheapest, if any.

        The cheapest has the lowest cost per saving. Candidates that are eliminated on the way are
        measured on fewer images. There is no cheapest where no loss is a number. The state is as
        it was when this returns.

        Args:
            state: the network as it stands.
            proposals: the candidates.
            losses: of each calibration image as they are now, (images,), in nats.
            savings: how much each candidate saves.
            known: a cache of changes of the losses by candidate and batch, of this very state:
                they are not measured again, and what is measured is added. It changes no result.
        """
        cache = {} if known is None else known
        changes = [cache.setdefault(proposal.key, []) for proposal in proposals]
        trials, network = _Trials(state, proposals), state.running.folded_model
        batches, losses, falling = hardest_first(self._batches, losses)
        live, raced, passed = list(range(len(proposals))), [0] * len(proposals), 0
        with torch.inference_mode(), state.running.replay() as replay:
            for number, batch in enumerate(batches if live else ()):
                missing = [i for i in live if len(changes[i]) <= number]
                run = partial(image_losses, self._task, network, batch)
                measured = replay.differences(run, network, [trials[i] for i in missing])
                for i, change in zip(missing, measured, strict=True):
                    changes[i].append(change)
                for i in live:
                    raced[i] = number + 1
                passed += self._task.images(batch)
                if falling or passed == self._images:
                    seen = [of_one[: number + 1] for of_one in changes]
                    likelihoods = isinstance(self._task, Classification)
                    live = surviving_candidates(
                        live, seen, savings, losses, likelihoods=likelihoods
                    )
                    if len(live) < 2:
                        break
        # more batches may be known than this race took
        parts = [of_one[:count] for of_one, count in zip(changes, raced, strict=True)]
        return [self._sensitivity(part) for part in parts], next(iter(live), None)

    def _sensitivity(self, changes: Sequence[Tensor]) -> Sensitivity:
        total = sum(float(change.sum()) for change in changes) / self._images
        nats = total if math.isfinite(total) else math.inf
        return Sensitivity(nats, sum(map(len, changes)))


class _Trials:
    """The trial of each candidate, made when it is first asked for, and cached if memory allows."""

    def __init__(self, state: State, proposals: Sequence[Proposal]) -> None:
        self._state, self._proposals = state, proposals
        self._cache: dict[int, Change] = {}
        self._bytes = 0

    def __getitem__(self, number: int) -> Change:
        if number in self._cache:
            return self._cache[number]
        trial = self._state.trial(self._proposals[number].units)
        self._bytes += trial.nbytes
        if self._bytes <= self._state.running.memory.trials:
            self._cache[number] = trial
        return trial
