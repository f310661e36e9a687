"""The one kind of batches: data read by index, in a fixed order and in fixed batches."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import compress
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves
from torch.utils.data import Dataset

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
            a tensor of inputs, ``Items`` or ``GivenBatches``.
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
        return not isinstance(self.data, GivenBatches) or self.data.random_access

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
        ranked = (
            self.labels.argsort(stable=True) if self.by_image else torch.arange(len(self.parts))
        )
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


class Items(Dataset[Any]):
    """Items read one by one: ``items[part]`` joins those at some indices to a batch.

    Items that were read stay in memory, as many as fit into ``memory_bytes``.

    Args:
        read: gives the item at an index.
        join: from items and their indices to a batch.
        memory_bytes: for the tensors of the items.
    """

    def __init__(
        self,
        read: Callable[[int], Any],
        join: Callable[[list[Any], list[int]], Any],
        memory_bytes: int,
    ) -> None:
        self._read, self._join, self._free_bytes = read, join, memory_bytes
        self._cache: dict[int, Any] = {}

    def __getitem__(self, part: Tensor) -> Any:
        """Return the batch of these indices (images,).

        Raises:
            InputError: an item cannot be read or joined.
        """
        indices = part.tolist()
        # gradients may flow through what is cached, also where the first pass needed none
        with torch.inference_mode(False):
            return self._join([self._item(index) for index in indices], indices)

    def _item(self, index: int) -> Any:
        if index in self._cache:
            return self._cache[index]
        item = self._read(index)
        size = sum(leaf.nbytes for leaf in tree_leaves(item) if isinstance(leaf, Tensor))
        if size <= self._free_bytes:
            self._cache[index] = item
            self._free_bytes -= size
        return item


class GivenBatches(Dataset[Any]):
    """Batches that come from elsewhere, found by the indices of their images.

    Batches asked for in their own order take one pass over the batches given. ``by_image`` says
    that they are (inputs, labels), and single inputs are asked for; else it is whole batches.
    """

    def __init__(self, batches: Batches, sizes: Sequence[int], by_image: bool) -> None:
        self._batches, self._by_image = batches, by_image
        self.random_access = isinstance(batches, Sequence)
        self._ends = torch.tensor(sizes).cumsum(0)
        self._pass: Iterator[Any] = iter(())
        self._next = len(sizes)  # the first batch begins a pass

    def __getitem__(self, part: Tensor) -> Any:
        """Return the inputs (images, ...) of these indices (images,), or the batch they are in."""
        numbers = torch.bucketize(part, self._ends, right=True)
        if not self._by_image:
            return self._batch(int(numbers[0]))
        places, found = [], []
        for number in torch.unique(numbers).tolist():
            inputs, labels = self._batch(number)
            places.append((numbers == number).nonzero().flatten())
            found.append(inputs[part[places[-1]] - (int(self._ends[number]) - len(labels))])
        return torch.cat(found)[torch.cat(places).argsort()]

    def _batch(self, number: int) -> Any:
        if isinstance(self._batches, Sequence):
            return self._batches[number]
        if number < self._next:
            self._pass, self._next = iter(self._batches), 0
        for _ in range(number - self._next):
            next(self._pass)
        self._next = number + 1
        return next(self._pass)


def in_memory(inputs: Tensor, labels: Tensor, batch_images: int) -> IndexedBatches:
    """Return batches of images that are in memory, inputs (images, ...) and labels (images,)."""
    parts = torch.split(torch.arange(len(labels)), batch_images)
    return IndexedBatches(inputs, parts, labels, by_image=True)


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
    return _given(batches, [len(part) for part in labels], torch.cat(labels) if labels else None)


def whole_batches(batches: Batches) -> IndexedBatches:
    """Return any batches as such that are only taken as they are.

    Raises:
        InputError: there is no image.
    """
    if isinstance(batches, IndexedBatches):
        return batches.whole()
    return _given(batches, [count_images(batch) for batch in batches])


def _given(batches: Batches, sizes: Sequence[int], labels: Tensor | None = None) -> IndexedBatches:
    if not sum(sizes):
        raise InputError("the calibration split is empty; give images to recover accuracy with")
    parts = [part for part in torch.split(torch.arange(sum(sizes)), list(sizes)) if len(part)]
    by_image = labels is not None
    return IndexedBatches(GivenBatches(batches, sizes, by_image), parts, labels, by_image)


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
