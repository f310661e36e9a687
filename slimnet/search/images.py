"""The calibration images that a search runs, for each of its purposes as many as it needs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from torch import nn

from slimnet.execution import Layout, lay_out_each
from slimnet.options import RecoveryOptions
from slimnet.records import Inputs, Split
from slimnet.search.latency_table import widths_of
from slimnet.search.objective import macs_cost
from slimnet.tasks import Task

MIN_REFIT_IMAGES, MAX_REFIT_IMAGES = 512, 16384
REFIT_MACS = 2**41
"""A refit of all layers runs each image through the whole network once a layer, unless the outputs
of the layers before fit in memory. It gets as many images as take REFIT_MACS multiply-accumulates,
within the limits. ResNet-20 with half of its inner channels lost 5.9 points after a refit on 1,104
images, 5.0 on 3,000 and 4.5 on 7,728."""


@dataclass(frozen=True)
class ImageSets:
    """Calibration images laid out for the oracle, the inverse Gram matrices, refits and training.

    Equal sets are the same object and share their memory.
    """

    oracle: Split
    inverse_grams: Split
    refit: Split
    training: Split

    @property
    def used(self) -> Sequence[Split]:
        """The distinct ones."""
        sets = (self.oracle, self.inverse_grams, self.refit, self.training)
        return list({id(split): split for split in sets}.values())


def lay_out_sets(
    model: nn.Module,
    calibration: Split,
    options: RecoveryOptions,
    layout: Layout,
    task: Task,
) -> ImageSets:
    """Return the calibration images that a search of this network runs; it is not changed."""
    example = task.inputs(model, next(iter(calibration.batches)), 1)
    counts = images_used(model, example, calibration.images, options)
    memory = options.memory_bytes
    oracle, inverse_grams, refit = lay_out_each(calibration, counts, layout, task, memory)
    training = oracle  # not used, and in memory anyway
    if options.finetune_epochs:
        # the repair's images had to fit in memory; training can read the others one by one
        everything = task.batches(calibration.batches)
        more = inverse_grams.images < counts[1] and everything.random_access
        training = replace(calibration, batches=everything) if more else inverse_grams
    return ImageSets(oracle, inverse_grams, refit, training)


def images_used(
    model: nn.Module, example: Inputs, available: int, options: RecoveryOptions
) -> tuple[int, int, int]:
    """Return the numbers of images for the oracle, for inverse Grams or training, and for refits.

    Without repair and training these are the oracle's.
    """
    oracle = options.oracle_images
    learning = available if options.repair or options.finetune_epochs else oracle
    if not options.repair:
        return oracle, learning, oracle
    cost, widths = macs_cost(model, example), widths_of(model)
    macs = sum(cost(name, width) for name, width in widths.items())
    return oracle, learning, refit_images(macs, len(widths))


def refit_images(macs: float, layers: int) -> int:
    """Return on how many images to refit layers: fewer where the network computes more."""
    images = round(REFIT_MACS / max(1.0, macs * layers))
    return min(MAX_REFIT_IMAGES, max(MIN_REFIT_IMAGES, images))
