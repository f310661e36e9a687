"""Glances at a network that differs by a channel or so from one that was ranked before.

Next to nothing changes then for most images. The hardest, which have nearly all of the gradients,
run forward and backward again, and of the others some in turn, forward only. How far the scores of
those have come from what was known says how far all scores may be out; where that matters, further
glances take in more images, down to all of them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch import Tensor

from slimnet.measure import require_finite_loss
from slimnet.saliency import EVERY_SUM, OF_GRADIENTS, LayerStatistics
from slimnet.search.layout import Images
from slimnet.search.ranking import Known, Ranker, Ranking, batches_to_do, in_place
from slimnet.search.recording import Recording

STALE_SHARES = (0.03, 0.004, 0.0005, -1.0)
"""By glance, of all (1 - p) the part that may be on images whose gradients are older."""

TURNS = (4, 2, 14, 0)
"""By glance, how many twentieths of all images run forward.

A loss that is not renewed for many steps may have risen from nothing: with one at first, two of
five draws of images lost a winner in 40 steps of ResNet-20; with two, one; with four, none.
"""

EVERY = sum(TURNS)

MOST_HARD = 1 / 3
"""Of all images; where more are hard a glance is hardly less than a ranking."""

OF_ACTIVATIONS = frozenset(EVERY_SUM) - OF_GRADIENTS

Statistics = Mapping[str, LayerStatistics]


class Glances:
    """The glances at one network, each with what was known before of the images left out.

    Args:
        ranker: of the network as it stands, which is not changed.
        images: the oracle's; their losses are -log p.
        known: its statistics as they were before, and about the losses as they are now.
        recording: keeps what layers put out for the hardest images.
    """

    def __init__(self, ranker: Ranker, images: Images, known: Known, recording: Recording) -> None:
        self._ranker, self._images, self._known = ranker, images, known
        self._recording = recording
        self._statistics, self._losses, self._turn = known.statistics, known.losses, known.turn
        nothing = torch.zeros(len(known.losses), dtype=torch.bool)
        self._forward, self._backward, self._glances = nothing, nothing.clone(), 0

    @property
    def worth_while(self) -> bool:
        """Whether few images are hard, so that a glance is much less than a ranking."""
        return len(self._hard(STALE_SHARES[0])) <= MOST_HARD * len(self._losses)

    def look(self) -> Ranking:
        """Return the ranking after one more glance; the fourth is a ranking of all images.

        Raises:
            InputError: the loss is not a finite number.
        """
        share, turns = STALE_SHARES[self._glances], TURNS[self._glances]
        self._glances += 1
        hard = self._hard(share)
        self._run(hard[~self._backward[hard]], gradients=True)
        turn = (self._known.order - self._turn) % EVERY < turns
        self._turn += turns
        self._run((turn & ~self._forward).nonzero()[:, 0], gradients=False)
        require_finite_loss(float(self._losses.mean()), "calibration")
        known = replace(
            self._known, statistics=self._statistics, losses=self._losses, turn=self._turn
        )
        scores = self._ranker.scores(self._statistics)
        lacks = {**self._errors_of_gradients(scores), **self._errors_of_others()}
        return Ranking(scores, in_place(self._losses, self._known.order), lacks, known)

    def _hard(self, share: float) -> Tensor:
        """Return the places of the hardest images, which leave so much to the others."""
        falling = torch.argsort(self._losses, descending=True, stable=True)
        size = self._images.images_per_batch
        return falling[: size * max(1, batches_to_do(self._losses[falling], share, size))]

    def _run(self, places: Tensor, *, gradients: bool) -> None:
        """Run the images at these places anew."""
        if not len(places):
            return
        order = self._known.order[places]
        batches = self._images.ordered(order)
        gathering = self._ranker.gathering
        run: Any = partial(gathering.run, gradients=gradients)
        if gradients:
            parts = self._recording.run(gathering.model, batches, order, run)
        else:
            parts = [run(batch) for batch in batches]
        new, losses = self._ranker.statistics(parts)
        self._losses = self._losses.index_copy(0, places, losses)
        sums = EVERY_SUM if gradients else OF_ACTIVATIONS
        self._statistics = {
            name: layer.renewed(places, new[name], sums) for name, layer in self._statistics.items()
        }
        self._forward[places] = True
        self._backward[places] |= gradients

    def _errors_of_gradients(self, scores: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return the part of each score that is of older gradients, (units,).

        It may be wholly wrong: gradients are older where losses were low, and some have risen.
        """
        older = (~self._backward).nonzero()[:, 0]
        if not len(older):
            return {}
        found = self._ranker.scores(_of_images(self._statistics, older), self._ranker.of_gradients)
        share = len(older) / len(self._losses)  # a score is a mean over images
        parts = {metric: share * score / scores[metric] for metric, score in found.items()}
        return {metric: part.nan_to_num(nan=0.0).clamp(0, 1) for metric, part in parts.items()}

    def _errors_of_others(self) -> dict[str, Tensor]:
        """Return by which part of themselves scores have changed on what ran forward, (units,).

        What was known of those images is as old as that of any other, or older.
        """
        if self._forward.all():
            return {}
        others = [m for m in self._ranker.metrics if m not in self._ranker.of_gradients]
        images = (self._forward & ~self._backward).nonzero()[:, 0]
        if not len(images):
            images = self._forward.nonzero()[:, 0]
        older = {
            name: replace(layer.of_images(images), weight=self._statistics[name].weight)
            for name, layer in self._known.statistics.items()
        }
        before = self._ranker.scores(older, others)
        now = self._ranker.scores(_of_images(self._statistics, images), others)
        return {metric: _change(before[metric], now[metric]) for metric in others}


def _change(before: Tensor, now: Tensor) -> Tensor:
    """Return the change as a part of the mean of both, (units,): 2 at most."""
    size = (before.abs() + now.abs()) / 2
    part = (now - before).abs() / size.clamp_min(torch.finfo(size.dtype).tiny)
    return part.nan_to_num(nan=0.0)


def _of_images(statistics: Statistics, images: Tensor) -> dict[str, LayerStatistics]:
    return {name: layer.of_images(images) for name, layer in statistics.items()}
