"""Data read by index: ``data[part]`` gives a batch of the images at an index tensor.

A tensor that is in memory does so itself; this file has the kinds that are not.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves
from torch.utils.data import Dataset

from slimnet.records import Batches

MEMORY_BYTES = 512 * 1024**2  # the default of the option memory_mib


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
        memory_bytes: int = MEMORY_BYTES,
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

    Batches asked for in their own order take one pass over what was given.
    """

    def __init__(self, batches: Batches, sizes: Sequence[int]) -> None:
        self._batches, self.random_access = batches, isinstance(batches, Sequence)
        self.ends = torch.tensor(sizes).cumsum(0)
        self._pass: Iterator[Any] = iter(())
        self._next = sys.maxsize  # the first batch begins a pass

    def __getitem__(self, part: Tensor) -> Any:
        """Return the batch that these indices (images,) belong to, all of it."""
        return self.batch(int(self.numbers(part[:1])))

    def numbers(self, part: Tensor) -> Tensor:
        """Return the number of the batch that each image belongs to, (images,)."""
        return torch.bucketize(part, self.ends, right=True)

    def batch(self, number: int) -> Any:
        """Return a batch by its number."""
        if isinstance(self._batches, Sequence):
            return self._batches[number]
        if number < self._next:
            self._pass, self._next = iter(self._batches), 0
        for _ in range(number - self._next):
            next(self._pass)
        self._next = number + 1
        return next(self._pass)


@dataclass(frozen=True)
class GivenImages(Dataset[Tensor]):
    """The images of ``GivenBatches`` of (inputs, labels), one by one."""

    batches: GivenBatches

    def __getitem__(self, part: Tensor) -> Tensor:
        """Return the inputs (images, ...) of these indices (images,)."""
        numbers, ends = self.batches.numbers(part), self.batches.ends
        places, found = [], []
        for number in torch.unique(numbers).tolist():
            inputs, labels = self.batches.batch(number)
            places.append((numbers == number).nonzero().flatten())
            found.append(inputs[part[places[-1]] - (int(ends[number]) - len(labels))])
        return torch.cat(found)[torch.cat(places).argsort()]
