"""Which calibration images a search runs for what: each of its parts as many as it has use for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from torch import nn

from slimnet.measure import Task
from slimnet.records import Inputs, Split
from slimnet.search.cost import macs_cost, widths_of
from slimnet.search.layout import Layout, lay_out_each
from slimnet.settings import Settings

FEWEST_TO_RESOLVE, MOST_TO_RESOLVE = 512, 4096
RESOLVE_MACS = 2**40
"""What all images take that layers are solved on anew, each time through the whole network."""


@dataclass(frozen=True)
class ImageSets:
    """Calibration images laid out: for the oracle, the moments, re-solving, and training."""

    oracle: Split
    moments: Split
    solving: Split
    training: Split

    @property
    def used(self) -> Sequence[Split]:
        """All of them, those that are one and the same once."""
        sets = (self.oracle, self.moments, self.solving, self.training)
        return list({id(split): split for split in sets}.values())


def lay_out_sets(
    model: nn.Module, calibration: Split, settings: Settings, layout: Layout | None, task: Task
) -> ImageSets:
    """Return the images that a search of this network runs; equal sets share their memory."""
    example = task.inputs(model, next(iter(calibration.batches)), 1)
    images = images_used(model, example, calibration.images, settings)
    oracle, moments, solving = lay_out_each(calibration, images, layout, task)
    training = oracle  # read by nobody, and in memory anyway
    if settings.finetune_epochs:
        # images are read in turn: those that memory has no room for need not be left out
        training = calibration if moments.images < images[1] else moments
    return ImageSets(oracle, moments, solving, training)


def images_used(
    model: nn.Module, example: Inputs, available: int, settings: Settings
) -> tuple[int, int, int]:
    """Return how many images the oracle runs, and the moments or training, and the re-solving.

    What is neither repaired nor trained has no use for more than the oracle's.
    """
    oracle = settings.oracle_images
    moments = available if settings.repair or settings.finetune_epochs else oracle
    return oracle, moments, _images_to_resolve(model, example) if settings.repair else oracle


def _images_to_resolve(model: nn.Module, example: Inputs) -> int:
    """Return on how many images layers are solved anew: more where that takes little time."""
    cost, widths = macs_cost(model, example), widths_of(model)
    macs = sum(cost(name, width) for name, width in widths.items())
    images = round(RESOLVE_MACS / max(1.0, macs * len(widths)))
    return min(MOST_TO_RESOLVE, max(FEWEST_TO_RESOLVE, images))
