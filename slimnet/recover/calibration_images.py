"""The calibration images one by one, so that they can be mixed anew and some be held back."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from slimnet.errors import InputError
from slimnet.load.batches import labels_of
from slimnet.records import Batch, Batches
from slimnet.recover.held_back import images_held_back

JUDGING_EVERY = 8
MOST_ELEMENTS = 2**29


class CalibrationImages:
    """The images of some batches, by index. ``labels`` is (images,) int64.

    They are held in memory, as views of the batches, unless they are more than 2**29 numbers
    (2 GiB): then every pass over them goes over the batches as often as needed, with the same
    result.

    Raises:
        InputError: there is no image.
    """

    def __init__(self, batches: Batches) -> None:
        first = next(iter(batches), None)
        if first is None or not len(first[1]):
            raise InputError("the calibration split is empty; give images to recover accuracy with")
        self.labels = labels_of(batches)
        self._batches = batches
        self.most_held = max(1, MOST_ELEMENTS // max(1, first[0][0].numel()))
        everything = torch.arange(len(self.labels))
        self._held = self._gather(everything) if len(everything) <= self.most_held else None

    def divided(self) -> tuple[Tensor, Tensor]:
        """Return the indices to learn from and those held back to judge by, both sorted.

        Every eighth image of each class is held back, the same ones every time, so that no
        earlier training has seen them. With fewer than 8 images all do both.
        """
        held_back = images_held_back(self.labels, JUDGING_EVERY)
        judging = held_back if held_back.any() else ~held_back
        return (~held_back).nonzero().flatten(), judging.nonzero().flatten()

    def mixed(self, batch_images: int) -> Tensor:
        """Return all indices, ordered so that each batch holds the classes in proportion."""
        order, count = (
            self.labels.argsort(stable=True),
            count_batches(len(self.labels), batch_images),
        )
        return torch.cat([order[number::count] for number in range(count)])

    def batches(self, order: Tensor, batch_images: int) -> Batches:
        """Return the images of these indices in this order, in batches of nearly equal size.

        Equal, so that no batch of one image is left at the end, which has no variance.
        """
        return _Chosen(self, order.tensor_split(count_batches(len(order), batch_images)))

    def together(self, parts: Sequence[Tensor]) -> Iterator[Batch]:
        """Give one batch for each part, an index tensor, all of which fit in memory together."""
        held = self._gather(torch.cat(list(parts))) if self._held is None else self._held
        for part in parts:
            # cat and not stack, which would lose the memory format
            yield torch.cat([held[index] for index in part.tolist()]), self.labels[part]

    def _gather(self, indices: Tensor) -> dict[int, Tensor]:
        """Return the inputs (1, ...) of these indices, in one pass over the batches."""
        wanted = torch.zeros(len(self.labels), dtype=torch.bool)
        wanted[indices] = True
        found, start, some = {}, 0, not bool(wanted.all())
        for inputs, labels in self._batches:
            for place in wanted[start : start + len(labels)].nonzero().flatten().tolist():
                image = inputs[place : place + 1]
                # a copy of some, so that their neighbours do not stay in memory
                found[start + place] = image.clone() if some else image
            start += len(labels)
        return found


@dataclass(frozen=True)
class _Chosen:
    """Batches of some images in some order; implements ``records.Batches``."""

    images: CalibrationImages
    parts: Sequence[Tensor]

    def __iter__(self) -> Iterator[Batch]:
        many = max(1, self.images.most_held // len(self.parts[0]))
        for start in range(0, len(self.parts), many):
            yield from self.images.together(self.parts[start : start + many])


def count_batches(images: int, batch_images: int) -> int:
    """Return how many batches of at most ``batch_images`` these images make."""
    return -(-images // batch_images)
