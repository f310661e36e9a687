"""Data for a task of the user's own: items of any form, collated to batches as torch does it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils import _pytree
from torch.utils.data import Dataset, IterableDataset, default_collate

from slimnet.errors import InputError
from slimnet.load.importing import first_line
from slimnet.records import Split, Splits
from slimnet.settings import Settings

KEEP_BYTES = 2 * 1024**3
LEAST_ITEMS = 4
LEAST_BATCHES = 16
REPEATED_ITEMS = 2
NAMES = ("calibration", "selection", "test")


class ItemBatches:
    """Some items of a data set; implements ``records.Batches``.

    Batches are of nearly equal size, at most ``batch_size`` and so that there are 16 where every
    one can still hold two items. They are kept in memory after the first full pass if that takes
    less than ``keep_bytes``.
    """

    def __init__(
        self,
        dataset: Any,
        indices: Tensor,
        batch_size: int,
        name: str,
        keep_bytes: int = KEEP_BYTES,
    ) -> None:
        self._dataset, self._name, self._keep_bytes = dataset, name, keep_bytes
        least = min(LEAST_BATCHES, max(1, len(indices) // 2))
        self._parts = indices.tensor_split(max(-(-len(indices) // batch_size), least))
        self._kept: list[Any] | None = None

    def __iter__(self) -> Iterator[Any]:
        """Give what torch's ``default_collate`` makes of the items, in a fixed order.

        Raises:
            InputError: an item cannot be read, or items cannot be collated.
        """
        if self._kept is not None:
            yield from self._kept
            return
        made: list[Any] = []
        taken = 0
        for part in self._parts:
            # whoever reads them first, gradients may flow through these tensors later
            with torch.inference_mode(False):
                batch = self._collate(part.tolist())
            taken += sum(tensor.nbytes for tensor in _tensors(batch))
            if taken < self._keep_bytes:
                made.append(batch)
            yield batch
        if taken < self._keep_bytes:
            self._kept = made

    def _collate(self, indices: Sequence[int]) -> Any:
        try:
            return default_collate([self._dataset[index] for index in indices])
        except Exception as error:  # the user's code may raise anything
            raise InputError(
                f"{self._name}: items {indices[0]} to {indices[-1]} cannot be read and collated by "
                f"torch's default_collate: {first_line(error)}; give all items the same form and "
                "size"
            ) from error


def item_splits(datasets: Sequence[Any], name: str, settings: Settings) -> Splits:
    """Return three splits of one data set (at random), of two (calibration; rest), or of three.

    One: calibration is a third, or ``calibration_images``; selection and test halve the rest.

    Raises:
        InputError: not map style, too few items, or an item that changes from read to read.
    """
    for dataset in datasets:
        _require_fixed_items(dataset, name)
    generator = torch.Generator().manual_seed(settings.seed)
    if len(datasets) == 3:
        parts = [(dataset, torch.arange(len(dataset))) for dataset in datasets]
        how = "three data sets as they were given"
    else:
        held_out = datasets[-1]
        order = torch.randperm(len(held_out), generator=generator)
        count = len(held_out) // 3 if len(datasets) == 1 else len(datasets[0])
        count = min(settings.calibration_images, count)
        rest = order[count:] if len(datasets) == 1 else order
        if len(datasets) == 2:
            order = torch.randperm(len(datasets[0]), generator=generator)
        chosen = (order[:count], rest[: len(rest) // 2], rest[len(rest) // 2 :])
        sources = (datasets[0], held_out, held_out)
        parts = [(s, part.sort().values) for s, part in zip(sources, chosen, strict=True)]
        how = f"drawn from {name} at random, seed {settings.seed}"
    for which, (_, indices) in zip(NAMES, parts, strict=True):
        if len(indices) < LEAST_ITEMS:
            raise InputError(
                f"the {which} split needs {LEAST_ITEMS} items or more; {name} leaves "
                f"{len(indices)} for it: give more"
            )
    counts = ", ".join(f"{len(i)} for {n}" for n, (_, i) in zip(NAMES, parts, strict=True))
    calibration, selection, test = (
        Split(which, len(indices), ItemBatches(dataset, indices, settings.batch_size, name))
        for which, (dataset, indices) in zip(NAMES, parts, strict=True)
    )
    return Splits(calibration, selection, test, f"{how}: {counts} items", None, {})


def _require_fixed_items(dataset: Any, name: str) -> None:
    whole = hasattr(dataset, "__len__") and hasattr(dataset, "__getitem__")
    if isinstance(dataset, IterableDataset) or not whole:
        raise InputError(
            f"{name} must be a map-style data set with a length; got a {type(dataset).__name__}"
        )
    for index in range(min(len(dataset), REPEATED_ITEMS)):
        try:
            first, again = (_tensors(default_collate([dataset[index]])) for _ in range(2))
        except Exception as error:  # the user's code may raise anything
            raise InputError(f"{name}: reading item {index} failed: {first_line(error)}") from error
        same = len(first) == len(again) and all(map(torch.equal, first, again))
        if not same:
            raise InputError(
                f"{name} gives another item {index} each time; switch off its random augmentation"
            )


def _tensors(batch: Any) -> list[Tensor]:
    return [leaf for leaf in _pytree.tree_leaves(batch) if isinstance(leaf, Tensor)]


def is_dataset(data: Any) -> bool:
    """Tell whether data are a live data set, not a path to one."""
    return isinstance(data, Dataset) or (hasattr(data, "__getitem__") and not isinstance(data, str))
