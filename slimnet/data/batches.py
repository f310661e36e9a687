"""The one kind of batches: data read by index, in a fixed order and in fixed batches."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import compress
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves

from slimnet.data.indexed import GivenBatches, GivenImages
from slimnet.errors import InputError
from slimnet.records import Batches

# share of the classes that the best stride takes; a guess: at 1 one class of a hundred would be
# reason enough to take half as many images
ENOUGH_CLASSES = 0.9


@dataclass(frozen=True, eq=False)
class IndexedBatches:
    """Data in a fixed order and in fixed batches, and parts of them; see ``records.Batches``.

    Where ``by_image`` is true, single images can be taken and batches are (inputs, labels). Else a
    part is always made of whole batches. No method changes anything.

    Args:
        data: ``data[part]`` are the inputs at some indices, or the batch where there are no labels:
            a tensor of inputs, or data of ``indexed``.
        parts: the indices (images,) int64 of each batch.
        data_labels: of everything in ``data``, int64; None where only ``data`` knows the batches.
        by_image: whether batches may be taken apart.
    """

    data: Any
    parts: Sequence[Tensor]
    data_labels: Tensor | None = None
    by_image: bool = False

    def __iter__(self) -> Iterator[Any]:
        """Yield the batches, always the same ones.

        Raises:
            InputError: something cannot be read.
        """
        for part in self.parts:
            yield self._batch(part)

    @cached_property
    def order(self) -> Tensor:
        """Return the indices (images,) of all images, batch after batch."""
        return torch.cat(list(self.parts))

    @property
    def images(self) -> int:
        """Return how many images there are."""
        return len(self.order)

    @property
    def labels(self) -> Tensor:
        """Return the labels (images,) int64, in order; nothing is read for it.

        Raises:
            InputError: there are none.
        """
        if self.data_labels is None:
            raise InputError("these data have no labels")
        return self.data_labels[self.order]

    @property
    def random_access(self) -> bool:
        """Return whether an image can be read without the images before it."""
        given = getattr(self.data, "batches", self.data)
        return not isinstance(given, GivenBatches) or given.random_access

    def take(self, places: Tensor) -> IndexedBatches:
        """Return the images at these places in the order, in batches as large as the largest."""
        return self._in_parts(torch.split(self.order[places], max(map(len, self.parts))))

    def regrouped(self, batch_images: int) -> IndexedBatches:
        """Return the same images in batches of nearly equal size, at most ``batch_images``.

        Equal, because a last batch of one image would have no variance. Whole batches stay.
        """
        if not self.by_image:
            return self
        return self._in_parts(self.order.tensor_split(count_batches(self.images, batch_images)))

    def shuffled(self, generator: torch.Generator) -> IndexedBatches:
        """Return the same images in a random order, in as many batches; whole batches stay."""
        if not self.by_image:
            return self
        order = self.order[torch.randperm(self.images, generator=generator)]
        return self._in_parts(order.tensor_split(len(self.parts)))

    def mixed(self, batch_images: int) -> IndexedBatches:
        """Return the same images, each batch with the classes in proportion; whole batches stay."""
        if not self.by_image:
            return self
        by_class, count = self.labels.argsort(stable=True), count_batches(self.images, batch_images)
        order = torch.cat([by_class[number::count] for number in range(count)])
        return self._in_parts(self.order[order].tensor_split(count))

    def hold_back(self, every: int) -> tuple[IndexedBatches, IndexedBatches]:
        """Return a part to learn from and the part held back: every n-th image of each class.

        Every n-th index would skip classes where images cycle through them. Of whole batches it is
        every n-th batch. Where there are fewer than n, both parts are everything.
        """
        if self.by_image:
            ranked = self.labels.argsort(stable=True)
        else:
            ranked = torch.arange(len(self.parts))
        held_back = torch.zeros(len(ranked), dtype=torch.bool)
        held_back[ranked[every - 1 :: every]] = True
        rest = self._chosen(~held_back)
        return rest, self._chosen(held_back) if held_back.any() else rest

    def every_nth(self, stride: int) -> IndexedBatches:
        """Return every n-th image, or every n-th of whole batches, beginning with the first."""
        if self.by_image:
            return self.take(torch.arange(0, self.images, stride))
        return self._in_parts(self.parts[::stride])

    def stride_for(self, images: int) -> int:
        """Return n so that every n-th makes about so many images at most.

        It may be up to twice as large as needed, where a smaller one would leave out classes
        because images cycle through them.
        """
        smallest = max(1, -(-self.images // images))
        strides = range(smallest, 2 * smallest)
        if not self.by_image or len(strides) == 1:
            return smallest
        classes = [len(torch.unique(self.labels[::stride])) for stride in strides]
        enough = ENOUGH_CLASSES * max(classes)
        return next(n for n, found in zip(strides, classes, strict=True) if found >= enough)

    def first_inputs(self) -> Tensor | None:
        """Return the inputs (2, ...) of the first images; None of whole batches."""
        return self._inputs(self.order[:2]) if self.by_image else None

    def fitting(self, memory_bytes: int) -> int:
        """Return how many images fit into this memory, at least one; whole batches all count."""
        if not self.by_image:
            return self.images
        one = self._inputs(self.order[:1])
        return min(self.images, max(1, memory_bytes // one.nbytes))

    def loaded(
        self, batch_images: int, memory_format: torch.memory_format = torch.contiguous_format
    ) -> IndexedBatches:
        """Return the images read into memory, in batches of so many; whole batches stay."""
        if not self.by_image:
            return self
        inputs = self._inputs(self.order)
        if memory_format is torch.channels_last:
            inputs = inputs.contiguous(memory_format=memory_format)
        return in_memory(inputs, self.labels, batch_images)

    def with_labels(self, labels: Tensor) -> IndexedBatches:
        """Return the same images with these labels (images,) int64."""
        entries = int(self.order.max()) + 1
        data_labels = torch.zeros(entries, dtype=torch.int64).scatter(0, self.order, labels)
        return replace(self, data_labels=data_labels)

    def whole(self) -> IndexedBatches:
        """Return the same batches, none of which is taken apart any more."""
        return replace(self, by_image=False)

    def _chosen(self, chosen: Tensor) -> IndexedBatches:
        if self.by_image:
            return self.take(chosen.nonzero().flatten())
        return self._in_parts(list(compress(self.parts, chosen.tolist())))

    def _in_parts(self, parts: Sequence[Tensor]) -> IndexedBatches:
        return replace(self, parts=parts)

    def _batch(self, part: Tensor) -> Any:
        if self.data_labels is None:
            return self.data[part]
        return self._inputs(part), self.data_labels[part]

    def _inputs(self, part: Tensor) -> Tensor:
        first, images = int(part[0]), len(part)
        if isinstance(self.data, Tensor) and torch.equal(part, torch.arange(first, first + images)):
            return self.data[first : first + images]  # a view
        inputs: Tensor = self.data[part]
        return inputs


def in_memory(inputs: Tensor, labels: Tensor, batch_images: int) -> IndexedBatches:
    """Return batches of images that are in memory, inputs (images, ...) and labels (images,)."""
    return IndexedBatches(
        inputs, torch.split(torch.arange(len(labels)), batch_images), labels, True
    )


def hardest_first(batches: Batches, losses: Tensor) -> tuple[Batches, Tensor, bool]:
    """Return the images by falling loss, these losses (images,), and True.

    Batches that cannot be taken apart stay in their order, and the last is False.
    """
    if not isinstance(batches, IndexedBatches) or not batches.by_image:
        return batches, losses, False
    order = torch.argsort(losses, descending=True, stable=True)
    return batches.take(order), losses[order], True


def single_images(batches: Batches) -> IndexedBatches:
    """Return batches of (inputs, labels) as such that can be taken apart.

    Raises:
        InputError: there is no image.
    """
    if isinstance(batches, IndexedBatches):
        return batches
    labels = [labels for _, labels in batches]
    given = _given(batches, [len(part) for part in labels])
    return IndexedBatches(GivenImages(given.data), given.parts, torch.cat(labels), True)


def whole_batches(batches: Batches) -> IndexedBatches:
    """Return any batches as such that are only taken as they are.

    Raises:
        InputError: there is no image.
    """
    if isinstance(batches, IndexedBatches):
        return batches.whole()
    return _given(batches, [count_images(batch) for batch in batches])


def _given(batches: Batches, sizes: Sequence[int]) -> IndexedBatches:
    if not sum(sizes):
        raise InputError("the calibration split is empty; give images to recover accuracy with")
    parts = [part for part in torch.split(torch.arange(sum(sizes)), list(sizes)) if len(part)]
    return IndexedBatches(GivenBatches(batches, sizes), parts)


def count_images(batch: Any) -> int:
    """Return how many images a batch holds: the length of the first tensor in it, or 1."""
    tensors = (leaf for leaf in tree_leaves(batch) if isinstance(leaf, Tensor) and leaf.ndim)
    return next((len(tensor) for tensor in tensors), 1)


def labels_of(batches: Batches) -> Tensor:
    """Return the labels (images,) int64 of all batches; images are read only where needed."""
    if isinstance(batches, IndexedBatches):
        return batches.labels
    found = [labels for _, labels in batches]
    return torch.cat(found) if found else torch.empty(0, dtype=torch.int64)


def first_batch(batches: Batches, name: str) -> Any:
    """Return the first batch of the split of this name.

    Raises:
        InputError: there is none.
    """
    for batch in batches:
        return batch
    raise InputError(f"the {name} split is empty; give images for it")


def count_batches(images: int, batch_images: int) -> int:
    """Return how many batches of at most ``batch_images`` these images make."""
    return -(-images // batch_images)
