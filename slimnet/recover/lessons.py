"""What a fine-tuning learns from and what judges it: single images, or batches taken whole."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Protocol

import torch
from torch import nn

from slimnet.measure import Task
from slimnet.records import Batch, Batches
from slimnet.recover.augmentation import Change, known_changes
from slimnet.recover.calibration_images import JUDGING_EVERY, CalibrationImages, count_batches
from slimnet.recover.held_back import WholeBatches, batches_held_back
from slimnet.recover.recipe import TrainingRecipe


class Lessons(Protocol):
    """The images of one fine-tuning. ``judging`` are held back, unless there are too few."""

    learning_images: int
    judging_images: int
    steps: int
    judging: Batches
    changes: Mapping[str, Change]

    def epoch(self, generator: torch.Generator) -> Iterator[Any]:
        """Yield the batches of one epoch, at random where that can be."""
        ...


class ImageLessons:
    """Lessons of single images, mixed and changed anew in every epoch; see CalibrationImages."""

    def __init__(
        self, original: nn.Module, batches: Batches, recipe: TrainingRecipe, seed: int
    ) -> None:
        self._images, self._batch_images = CalibrationImages(batches), recipe.batch_images
        self._learning, held_back = self._images.divided()
        self.learning_images, self.judging_images = len(self._learning), len(held_back)
        self.steps = count_batches(self.learning_images, recipe.batch_images)
        self.judging: Batches = self._images.batches(held_back, recipe.batch_images)
        self.changes: Mapping[str, Change] = {}
        if recipe.augment:
            self.changes = known_changes(original, self.judging, seed)

    def epoch(self, generator: torch.Generator) -> Iterator[Batch]:
        """Yield (inputs, labels) of all images to learn from, in a new order."""
        order = self._learning[torch.randperm(self.learning_images, generator=generator)]
        for inputs, labels in self._images.batches(order, self._batch_images):
            for change in self.changes.values():
                inputs = change(inputs, generator)
            yield inputs, labels


class BatchLessons:
    """Lessons of whole batches, in their own order; every eighth one is held back."""

    def __init__(self, batches: Batches, task: Task) -> None:
        sizes = torch.tensor([task.images(batch) for batch in batches], dtype=torch.int64)
        held_back = batches_held_back(len(sizes), JUDGING_EVERY)
        judges = held_back if held_back.any() else ~held_back
        self._learning = WholeBatches(batches, ~held_back)
        self.judging: Batches = WholeBatches(batches, judges)
        self.steps = int((~held_back).sum())
        self.learning_images, self.judging_images = (
            int(sizes[~held_back].sum()),
            int(sizes[judges].sum()),
        )
        self.changes: Mapping[str, Change] = {}

    def epoch(self, generator: torch.Generator) -> Iterator[Any]:
        """Yield the batches to learn from."""
        yield from self._learning


def make_lessons(
    original: nn.Module, batches: Batches, recipe: TrainingRecipe, seed: int, task: Task
) -> Lessons:
    """Return what to learn from calibration batches; the original, in eval mode, is not changed.

    Raises:
        InputError: there is no image.
    """
    if not task.by_image:
        return BatchLessons(batches, task)
    return ImageLessons(original, batches, recipe, seed)
