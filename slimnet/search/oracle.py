"""The oracle: it measures the sensitivity of candidates, which is the change when channels go.

In the search in steps it is the change of the loss (paper, eq. 6), in the search in rounds that of
the distance from the original's outputs. A candidate is measured as it would be shipped: with its
consumers repaired, unless the repair is switched off, which is the paper's method.

A contest is a set of candidates of which one wins. They run a race over the images. Losses are
measured on the hardest images first, because they change mostly there. After a sixteenth and an
eighth of the images the cheaper half of the candidates stays, and after a quarter only the cheapest
(successive halving; Karnin, Koren and Somekh 2013, Almost Optimal Exploration in Multi-Armed
Bandits).
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from slimnet.data import hardest_first
from slimnet.records import Sensitivity, Split
from slimnet.search.candidates import Proposal
from slimnet.search.objective import cost_per_saving
from slimnet.search.state import State
from slimnet.tasks import MIN_SQUARE, Task

CHECKPOINTS = (1 / 16, 1 / 8, 1 / 4)
"""Shares of the images after which half of the candidates stay, and after the last one only one."""


def surviving_candidates(
    live: Sequence[int], changes: Sequence[Sequence[Tensor]], savings: Sequence[float], keep: int
) -> list[int]:
    """Return the ``keep`` candidates of the lowest cost per saving so far, the cheapest first.

    Args:
        live: the numbers of the candidates that are not eliminated yet.
        changes: by candidate, the changes of the losses on each batch so far, (images,) each.
        savings: how much each candidate saves.
        keep: how many stay; those whose loss is no number never do.
    """
    totals = {i: float(torch.cat(list(changes[i])).sum()) for i in live}
    costs = {i: cost_per_saving(total, savings[i]) for i, total in totals.items()}
    finite = [i for i in live if math.isfinite(totals[i])]
    return sorted(finite, key=costs.__getitem__)[:keep]


def output_distances(
    task: Task, network: nn.Module, batch: Any, wanted: Sequence[Tensor]
) -> Tensor:
    """Return how far each image's outputs are from ``wanted``, (images,) float64, without unit.

    It is the squared distance as a share of the mean square of ``wanted``, the mean over outputs.
    Of a classification, what all classes have in common does not count.
    An output that does not have one row for each image counts as a whole, for all of them. The
    network is not changed.
    """
    images, shares = task.images(batch), []
    outputs = task.decisive(tuple(task.outputs(network, batch)))
    for found, aim in zip(outputs, task.decisive(tuple(wanted)), strict=True):
        squares = (found - aim).double().square() / aim.double().square().mean().clamp_min(
            MIN_SQUARE
        )
        rows = squares.flatten(1).mean(1) if squares.ndim and len(squares) == images else None
        shares.append(squares.mean().expand(images) if rows is None else rows)
    return torch.stack(shares).mean(0)


def image_losses(task: Task, network: nn.Module, batch: Any) -> Tensor:
    """Return the loss of each image, (images,) float64, in nats; the network is not changed."""
    return task.losses(network, batch).double()


@dataclass(frozen=True)
class Contest:
    """What the oracle measured of some candidates. ``winner`` is the number of the cheapest.

    ``better_half`` are those that stayed after the first part of the race.
    """

    sensitivities: Sequence[Sensitivity]
    winner: int | None
    better_half: Sequence[int]

    def scaled(self, share: float) -> Contest:
        """Return the contest with a share of every sensitivity."""
        scaled = [Sensitivity(share * one.nats, one.images) for one in self.sensitivities]
        return replace(self, sensitivities=scaled)


class Oracle:
    """Measures the candidates of one search, always on the same calibration images.

    With a reference, sensitivities are changes of the distance from its outputs, not of the loss.
    """

    def __init__(
        self, state: State, calibration: Split, reference: nn.Module | None = None
    ) -> None:
        self._task, self._reference = state.task, reference
        self._wanted: dict[int, Sequence[Tensor]] = {}
        self._batches, self._images = calibration.batches, calibration.images

    def measure(
        self,
        state: State,
        contests: Sequence[Sequence[Proposal]],
        losses: Tensor,
        savings: Sequence[Sequence[float]],
    ) -> list[Contest]:
        """Return the sensitivities of the candidates of each contest, and who wins it.

        The winner has the lowest cost per saving, and is measured on all images. A contest has no
        winner where no loss is a number. The state is as it was when this returns.

        Args:
            state: the network as it stands.
            contests: the candidates of each contest.
            losses: of each calibration image as they are now, (images,), in nats; not read with
                a reference.
            savings: how much each candidate saves.
        """
        found: list[Contest] = []
        for chunk in _chunks(state, contests):
            found += self._race(state, contests[chunk], losses, savings[chunk])
        return found

    def _race(
        self,
        state: State,
        contests: Sequence[Sequence[Proposal]],
        losses: Tensor,
        savings: Sequence[Sequence[float]],
    ) -> list[Contest]:
        trials = [[state.trial(p.units) for p in proposals] for proposals in contests]
        changes: list[list[list[Tensor]]] = [[[] for _ in one] for one in contests]
        live = [list(range(len(one))) for one in contests]
        network, passed = state.running.folded_model, 0
        batches = self._batches
        if self._reference is None:
            batches, _, _ = hardest_first(batches, losses)
        halvings = 0
        better: dict[int, list[int]] = {}
        with torch.inference_mode(), state.running.replay() as replay:
            for number, batch in enumerate(batches):
                entries = [(c, i) for c, left in enumerate(live) for i in left]
                if not entries:
                    break
                run = partial(image_losses, self._task, network, batch)
                if self._reference is not None:
                    if number not in self._wanted:
                        self._wanted[number] = self._task.outputs(self._reference, batch)
                    wanted = self._wanted[number]
                    run = partial(output_distances, self._task, network, batch, wanted)
                measured = replay.differences(run, network, [trials[c][i] for c, i in entries])
                for (c, i), change in zip(entries, measured, strict=True):
                    changes[c][i].append(change)
                passed += self._task.images(batch)
                before, halvings = halvings, self._halvings(passed)
                if halvings == before:
                    continue
                for c, candidates in enumerate(contests):
                    last = halvings >= len(CHECKPOINTS)
                    keep = 1 if last else -(-len(candidates) // 2**halvings)
                    live[c] = surviving_candidates(live[c], changes[c], savings[c], keep)
                    better.setdefault(c, live[c])
        return [
            Contest(
                [self._sensitivity(part) for part in changes[c]],
                live[c][0] if live[c] else None,
                better.get(c, live[c]),
            )
            for c in range(len(contests))
        ]

    def _halvings(self, passed: int) -> int:
        """Return how often the candidates are halved after so many images, and once at the end."""
        return sum(passed >= share * self._images for share in (*CHECKPOINTS, 1))

    def _sensitivity(self, changes: Sequence[Tensor]) -> Sensitivity:
        total = sum(float(change.sum()) for change in changes) / self._images
        nats = total if math.isfinite(total) else math.inf
        return Sensitivity(nats, sum(map(len, changes)))


def _chunks(state: State, contests: Sequence[Sequence[Proposal]]) -> Iterator[slice]:
    """Yield slices of contests whose trials are in memory at the same time."""
    start, room = 0, state.running.memory.trials
    for number, proposals in enumerate(contests):
        needed = sum(state.trial_bytes(proposal.units) for proposal in proposals)
        if number > start and needed > room:
            yield slice(start, number)
            start, room = number, state.running.memory.trials
        room -= needed
    if start < len(contests):
        yield slice(start, len(contests))
