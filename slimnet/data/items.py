"""Data for a task of the user's own: items of any form, collated to batches as torch does it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves
from torch.utils.data import Dataset, IterableDataset, default_collate

from slimnet.data.batches import IndexedBatches, count_batches
from slimnet.data.indexed import MEMORY_BYTES, Items
from slimnet.data.source import NAMES, require_images
from slimnet.errors import InputError
from slimnet.load import first_line
from slimnet.options import DataOptions
from slimnet.records import Split, Splits

MIN_ITEMS = 2  # the network is tried on two; bounds ask for more batches where they are found
# a score is evaluated batch by batch: at 16 batches Student's t is within 7 % of its limit at 95 %
MIN_BATCHES = 16
REPEATED_ITEMS = 2  # a guess: random augmentation shows in the first items


def item_splits(
    datasets: Sequence[Any], name: str, options: DataOptions, memory_bytes: int = MEMORY_BYTES
) -> Splits:
    """Return three splits of one data set (at random), of two (calibration; rest), or of three.

    Of one data set calibration is a third, at most ``calibration_images``. Selection and test halve
    the rest. Each split caches items up to ``memory_bytes``.

    Raises:
        InputError: not map style, too few items, or an item that changes from read to read.
    """
    for dataset in datasets:
        _require_fixed_items(dataset, name)
    if len(datasets) == 3:
        parts = [(dataset, torch.arange(len(dataset))) for dataset in datasets]
        how = "three data sets as they were given"
    else:
        parts = _drawn(datasets, options)
        how = f"drawn from {name} at random, seed {options.seed}"
    for which, (_, indices) in zip(NAMES, parts, strict=True):
        require_images(which, len(indices), MIN_ITEMS, name, "items")
    counts = ", ".join(f"{len(i)} for {n}" for n, (_, i) in zip(NAMES, parts, strict=True))
    calibration, selection, test = (
        Split(which, len(indices), _batches(dataset, indices, name, options, memory_bytes))
        for which, (dataset, indices) in zip(NAMES, parts, strict=True)
    )
    return Splits(calibration, selection, test, f"{how}: {counts} items", None, {})


def _drawn(datasets: Sequence[Any], options: DataOptions) -> list[tuple[Any, Tensor]]:
    """Return data set and sorted indices (items,) of each split, from one data set or two."""
    generator = torch.Generator().manual_seed(options.seed)
    held_out = datasets[-1]
    order = torch.randperm(len(held_out), generator=generator)
    count = len(held_out) // 3 if len(datasets) == 1 else len(datasets[0])
    count = min(options.calibration_images, count)
    rest = order[count:] if len(datasets) == 1 else order
    if len(datasets) == 2:
        order = torch.randperm(len(datasets[0]), generator=generator)
    chosen = (order[:count], rest[: len(rest) // 2], rest[len(rest) // 2 :])
    sources = (datasets[0], held_out, held_out)
    return [(s, part.sort().values) for s, part in zip(sources, chosen, strict=True)]


def _batches(
    dataset: Any, indices: Tensor, name: str, options: DataOptions, memory_bytes: int
) -> IndexedBatches:
    """Return batches of nearly equal size, at most ``batch_size`` items.

    There are 16 of them or more where each can hold two items.
    """

    def read(index: int) -> Any:
        try:
            return dataset[index]
        except Exception as error:  # the user's code may raise anything
            raise InputError(f"{name}: reading item {index} failed: {first_line(error)}") from error

    def join(items: list[Any], places: list[int]) -> Any:
        try:
            return default_collate(items)
        except Exception as error:  # whatever a form of the user's own makes torch raise
            raise InputError(
                f"{name}: torch's default_collate cannot join items {places[0]} to {places[-1]}: "
                f"{first_line(error)}; give all items the same form and size"
            ) from error

    fewest = min(MIN_BATCHES, max(1, len(indices) // 2))
    count = max(count_batches(len(indices), options.batch_size), fewest)
    return IndexedBatches(Items(read, join, memory_bytes), indices.tensor_split(count))


def _require_fixed_items(dataset: Any, name: str) -> None:
    map_style = hasattr(dataset, "__len__") and hasattr(dataset, "__getitem__")
    if isinstance(dataset, IterableDataset) or not map_style:
        raise InputError(
            f"{name} must be a map-style data set with a length; got a {type(dataset).__name__}"
        )
    for index in range(min(len(dataset), REPEATED_ITEMS)):
        try:
            first, again = (_tensors(default_collate([dataset[index]])) for _ in range(2))
        except Exception as error:  # the user's code may raise anything
            raise InputError(f"{name}: reading item {index} failed: {first_line(error)}") from error
        if len(first) != len(again) or not all(map(torch.equal, first, again)):
            raise InputError(
                f"{name} gives another item {index} each time; switch off its random augmentation"
            )


def _tensors(batch: Any) -> list[Tensor]:
    return [leaf for leaf in tree_leaves(batch) if isinstance(leaf, Tensor)]


def is_dataset(data: Any) -> bool:
    """Return whether data are a live data set, not a path to one."""
    return isinstance(data, Dataset) or (hasattr(data, "__getitem__") and not isinstance(data, str))
