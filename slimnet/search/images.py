"""The calibration images that a search runs, for each of its purposes as many as it needs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

from torch import nn

from slimnet.execution import Layout, lay_out_each
from slimnet.options import RecoveryOptions, SearchOptions
from slimnet.records import Inputs, Split
from slimnet.search.latency_table import widths_of
from slimnet.search.objective import macs_cost
from slimnet.tasks import Task

REFIT_MACS, REFIT_IMAGES = 2**41, (256, 4096)
"""A refit of all layers runs each image through the whole network once a layer, unless the outputs
of the layers before fit in memory. It gets as many images as take REFIT_MACS multiply-accumulates,
within the limits. ResNet-20 with half of its inner channels lost 8.9 points after a refit on 1,104
images, 7.9 on 3,864."""

QUICK_MACS, QUICK_IMAGES = 2**39, (64, 256)
"""The same for the refits of most tries of a round. Refits of four layers of ResNet-20 left within
0.03 of the same share of a distance with 256 images as with 1,932, in 19 of 20 cases."""

DISTANCE_MACS, DISTANCE_IMAGES = 2**38, (16, 128)
"""The same for the distances of trials. They differ little from image to image, where changes of
the loss come from a few of them. A guess: NIN gets the most images."""


class ImageCounts(NamedTuple):
    """How many images a search uses for each purpose; ``inverse_grams`` also for training."""

    oracle: int
    inverse_grams: int
    refit: int
    quick_refit: int
    distances: int


@dataclass(frozen=True)
class ImageSets:
    """Calibration images laid out for each purpose of a search.

    Those of ``quick_refit`` are for most refits, of ``distances`` for the trials of rounds. Equal
    sets are the same object and share their memory.
    """

    oracle: Split
    inverse_grams: Split
    refit: Split
    quick_refit: Split
    distances: Split
    training: Split

    @property
    def used(self) -> Sequence[Split]:
        """The distinct ones."""
        return list({id(split): split for split in vars(self).values()}.values())


def lay_out_sets(
    model: nn.Module,
    calibration: Split,
    options: SearchOptions,
    layout: Layout,
    task: Task,
) -> ImageSets:
    """Return the calibration images that a search of this network runs; it is not changed.

    A repair with fewer images than a layer has columns overfits them. So the distances of
    trials are measured on images that no repair has seen.
    """
    example, batches = task.inputs(model, next(iter(calibration.batches)), 1), calibration.batches
    counts = images_used(model, example, calibration.images, options)
    learning = held_out = task.batches(batches)
    if options.step is None:
        every = max(4, calibration.images // counts.distances)
        if not learning.by_image:
            every = min(every, max(4, len(learning.parts)))
        learning, held_out = learning.hold_back(every)
    oracle, inverse_grams, refit, quick_refit = lay_out_each(
        replace(calibration, images=learning.images, batches=learning),
        counts[:-1], layout, task, options.memory_bytes,
    )  # fmt: skip
    (distances,) = lay_out_each(
        replace(calibration, images=held_out.images, batches=held_out),
        [counts.distances], layout, task, options.memory_bytes,
    )  # fmt: skip
    training = oracle  # not used, and in memory anyway
    if options.finetune_epochs:
        # the repair's images had to fit in memory; training can read the others one by one
        more = inverse_grams.images < min(counts.inverse_grams, learning.images)
        if more and learning.random_access:
            training = replace(calibration, images=learning.images, batches=learning)
        else:
            training = inverse_grams
    return ImageSets(oracle, inverse_grams, refit, quick_refit, distances, training)


def images_used(
    model: nn.Module, example: Inputs, available: int, options: RecoveryOptions
) -> ImageCounts:
    """Return the numbers of images: fewer where the network computes more.

    Without repair and training all but those for distances are the oracle's.
    """
    cost, widths = macs_cost(model, example), widths_of(model)
    macs = len(widths) * sum(cost(name, width) for name, width in widths.items())
    oracle = options.oracle_images
    distances = min(oracle, _affordable(DISTANCE_MACS, macs, DISTANCE_IMAGES))
    refit, quick_refit = oracle, oracle
    if options.repair:
        refit = _affordable(REFIT_MACS, macs, REFIT_IMAGES)
        quick_refit = _affordable(QUICK_MACS, macs, QUICK_IMAGES)
    inverse_grams = available if options.finetune_epochs else refit
    return ImageCounts(oracle, inverse_grams, refit, quick_refit, distances)


def _affordable(allowed_macs: float, macs: float, limits: tuple[int, int]) -> int:
    """Return how many images may take these multiply-accumulates each, within the limits."""
    fewest, most = limits
    return min(most, max(fewest, round(allowed_macs / max(1.0, macs))))
