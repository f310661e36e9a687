"""The images that a fine-tuning learns from, how they are augmented, and those held back."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from slimnet.data import IndexedBatches, class_scores
from slimnet.load import inference
from slimnet.records import Batch, Batches
from slimnet.tasks import Task

Change = Callable[[Tensor, torch.Generator], Tensor]
# every eighth image shows whether training helped; a guess: with fewer, noise would decide
HELD_OUT_EVERY = 8
# an image moves by an eighth of its side at most: the usual 4 pixels of CIFAR-10's 32
SHIFT_SHARE = 8
# a change is known if the original loses at most 5 % of its right answers by it; a guess
MIN_RIGHT_SHARE = 0.95


def mirror(images: Tensor, generator: torch.Generator) -> Tensor:
    """Return the images (N, C, H, W) with left and right exchanged in half of them, at random."""
    chosen = torch.rand(len(images), generator=generator) < 0.5
    return torch.where(chosen[:, None, None, None], images.flip(3), images)


def shift(images: Tensor, generator: torch.Generator) -> Tensor:
    """Return the images (N, C, H, W), each moved by up to an eighth of its side. Edges repeat."""

    def moved(side: int) -> Tensor:
        most = side // SHIFT_SHARE
        by = torch.randint(-most, most + 1, (len(images), 1), generator=generator)
        return (torch.arange(side) + by).clamp(0, side - 1)

    rows, columns = moved(images.shape[2]), moved(images.shape[3])
    image = torch.arange(len(images))[:, None, None, None]
    channel = torch.arange(images.shape[1])[:, None, None]
    return images[image, channel, rows[:, None, :, None], columns[:, None, None, :]]


CHANGES: dict[str, Change] = {"mirror": mirror, "shift": shift}


def known_changes(original: nn.Module, batches: IndexedBatches, seed: int) -> dict[str, Change]:
    """Return the changes that the original still recognises images after, by name.

    The original, in eval mode, is not changed. A digit's mirror image is no digit, which only
    measuring shows: the original must be right on 95 % as many images. Inputs other than images
    (N, C, H, W) have no such changes. ``seed`` is of the random changes that are measured.
    """
    inputs = batches.first_inputs()
    if inputs is None or inputs.ndim != 4:
        return {}
    generator = torch.Generator().manual_seed(seed)
    fewest = MIN_RIGHT_SHARE * _count_right(original, batches)
    known = {}
    for name, change in CHANGES.items():
        changed = ((change(images, generator), labels) for images, labels in batches)
        if _count_right(original, changed) >= fewest:
            known[name] = change
    return known


def _count_right(model: nn.Module, batches: Iterable[Batch]) -> int:
    with inference(model):
        right = [class_scores(model(inputs)).argmax(1) == labels for inputs, labels in batches]
    return sum(int(one.sum()) for one in right)


@dataclass(frozen=True)
class TrainingData:
    """Batches to learn from, batches held back (the same ones if there are few), and changes."""

    learning: IndexedBatches
    held_out: IndexedBatches
    changes: Mapping[str, Change]

    @property
    def steps(self) -> int:
        """Return the number of batches of an epoch."""
        return len(self.learning.parts)

    def epoch(self, generator: torch.Generator) -> Iterator[Any]:
        """Yield the batches of one epoch: images in a new order, changed anew; or whole batches."""
        for batch in self.learning.shuffled(generator):
            if not self.changes:
                yield batch
                continue
            inputs, labels = batch
            for change in self.changes.values():
                inputs = change(inputs, generator)
            yield inputs, labels


def make_training_data(
    original: nn.Module,
    batches: Batches,
    task: Task,
    *,
    batch_images: int,
    augment: bool,
    seed: int,
) -> TrainingData:
    """Return the data to learn from; the original, in eval mode, is not changed.

    Every eighth image of each class is held back, or every eighth batch of a task of the user's
    own: the same ones every time, so that no earlier training has seen them.

    Args:
        original: the network that must recognise augmented images.
        batches: calibration images.
        task: whose parts the data come in.
        batch_images: images of a step, at most; whole batches stay as they are.
        augment: whether images are changed.
        seed: of the random changes that are tried.

    Raises:
        InputError: there is no image.
    """
    learning, held_out = (
        part.regrouped(batch_images) for part in task.batches(batches).hold_back(HELD_OUT_EVERY)
    )
    changes = known_changes(original, held_out, seed) if augment else {}
    return TrainingData(learning, held_out, changes)
