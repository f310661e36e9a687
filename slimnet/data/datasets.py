"""Read live PyTorch data sets, map style: inputs with labels, or items for a user's own task."""

import operator
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils._pytree import tree_leaves
from torch.utils.data import Dataset, IterableDataset, default_collate

from slimnet.data.batches import IndexedBatches, Items, count_batches
from slimnet.data.source import (
    OF_OWN_TASK,
    WITHOUT_LABELS,
    Source,
    checked_labels,
    checked_values,
    is_one_hot,
    kind_of,
    no_labels,
    require_images,
)
from slimnet.data.splits import selection_count
from slimnet.errors import InputError
from slimnet.load import first_line
from slimnet.options import DataOptions
from slimnet.records import Split, Splits

MIN_ITEMS = 2  # the network is tried on two; bounds ask for more batches where they are found
# a score is evaluated batch by batch: at 16 batches Student's t is within 7 % of its limit at 95 %
MIN_BATCHES = 16
REPEATED_ITEMS = 4  # a guess: random augmentation shows in the first items


def is_dataset(data: Any) -> bool:
    """Return whether data are a live data set, not a path to one."""
    return isinstance(data, Dataset) or (hasattr(data, "__getitem__") and not isinstance(data, str))


def open_dataset(dataset: Any, name: str, labelled: bool = True) -> Source:
    """Return the inputs of a live data set, which is not changed.

    Items are (input, label). An input is a tensor or array without the batch axis: an image
    (C, H, W), a signal (C, L), a video (C, T, H, W), a row of a table (F,). A label is a whole
    number or one-hot. Labels come from ``dataset.targets`` if there is one, else from reading
    every item once. Where they are not ``labelled``, an item is an input or a tuple that begins
    with one.

    Raises:
        InputError: not map style, or items of another form, or items that change between reads.
    """
    _require_fixed(dataset, name, lambda index: _labelled_item(dataset, index, name, labelled))
    count = len(dataset)
    kind = kind_of(_labelled_item(dataset, 0, name, labelled)[0]) if count else "items"
    labels = _labels(dataset, count, name) if labelled else no_labels(count)
    labels = checked_labels(labels, count, name, kind)

    def read(index: int) -> Tensor:
        found, label = _labelled_item(dataset, index, name, labelled)
        if label != labels[index]:
            raise InputError(
                f"{name}: item {index} has the label {int(label)}, but targets says "
                f"{int(labels[index])}; make them the same"
            )
        return found

    return Source(name, read, labels, kind=kind)


def _labels(dataset: Any, count: int, name: str) -> Tensor:
    targets = getattr(dataset, "targets", None)
    if targets is not None and len(targets) == count:
        try:
            return torch.as_tensor(targets)
        except (TypeError, ValueError, RuntimeError):
            pass  # targets of another kind, such as names: the items have the labels
    return torch.tensor([int(_labelled_item(dataset, index, name)[1]) for index in range(count)])


def _labelled_item(
    dataset: Any, index: int, name: str, labelled: bool = True
) -> tuple[Tensor, Tensor]:
    """Return an input (...) and its label, an int64 scalar; 0 where there are none."""
    item = _read(dataset, index, name)
    if not labelled:
        item = (item[0] if isinstance(item, (tuple, list)) and item else item, 0)
    if not isinstance(item, (tuple, list)) or len(item) != 2 or not _is_array(item[0]):
        several = isinstance(item, (tuple, list))
        got = f"({', '.join(type(part).__name__ for part in item)})" if several else None
        hint = WITHOUT_LABELS if _is_array(item) else OF_OWN_TASK
        if several and item and isinstance(item[0], Image.Image):
            hint = "make a tensor of the image with torchvision.transforms.ToTensor()"
        raise InputError(
            f"{name}: items are (input tensor, whole-number label); got "
            f"{got or type(item).__name__}; {hint}"
        )
    label = _checked_label(item[1], index, name)
    return _checked_input(item[0], index, name), torch.tensor(label)


def _is_array(value: Any) -> bool:
    return isinstance(value, (Tensor, np.ndarray))


def _checked_input(value: Any, index: int, name: str) -> Tensor:
    where = f"{name}, item {index}"
    try:
        found = torch.as_tensor(value).detach().cpu()
    except TypeError:  # an array of text or objects
        raise InputError(f"{where}: an input is numbers; got {value.dtype}") from None
    if found.ndim == 0:
        raise InputError(f"{where}: an input has one axis or more; got a single number")
    return checked_values(found, where, kind_of(found))


def _checked_label(label: Any, index: int, name: str) -> int:
    try:
        return operator.index(label)
    except (TypeError, RuntimeError):
        pass
    got = type(label).__name__
    if _is_array(label):
        got = f"{got} of {label.dtype} and the shape {tuple(label.shape)}"
    try:
        found = torch.as_tensor(label)
    except (TypeError, ValueError, RuntimeError):  # text, or lists of unequal length
        found = torch.empty(0)
    if found.ndim == 1 and is_one_hot(found):
        return int(found.int().argmax())
    raise InputError(
        f"{name}: a label is a whole number; item {index} has a {got}; {OF_OWN_TASK}"
    ) from None


def item_splits(
    datasets: Sequence[Any],
    name: str,
    options: DataOptions,
    *,
    confirm: bool,
    test: Any = None,
) -> Splits:
    """Return splits of one data set (at random), of two (calibration; rest), or of three.

    Of one data set calibration is a third, at most ``calibration_images``. The rest is for
    selection or, to ``confirm``, for selection and confirmation, see ``divide``. The third of three
    data sets, or ``test``, is the test split. Each split caches items up to ``memory_mib``.

    Raises:
        InputError: not map style, too few items, or an item that changes from read to read.
    """
    for dataset in datasets:
        _require_fixed(dataset, name, partial(_item_tensors, dataset, name))
    *datasets, test = datasets if len(datasets) == 3 else [*datasets, test]
    parts = _drawn(datasets, options, confirm)
    if test is not None:
        _require_fixed(test, name, partial(_item_tensors, test, name))
        parts["test"] = (test, torch.arange(len(test)))
    for which, (_, indices) in parts.items():
        require_images(which, len(indices), MIN_ITEMS, name, "items")
    counts = ", ".join(f"{len(indices)} for {which}" for which, (_, indices) in parts.items())
    made = {
        which: Split(which, len(indices), _batches(dataset, indices, name, options))
        for which, (dataset, indices) in parts.items()
    }
    how = f"drawn from {name} at random, seed {options.seed}: {counts} items"
    return Splits(
        made["calibration"], made["selection"], made.get("test"), how, None, {},
        made.get("confirmation"),
    )  # fmt: skip


def _drawn(
    datasets: Sequence[Any], options: DataOptions, confirm: bool
) -> dict[str, tuple[Any, Tensor]]:
    """Return data set and sorted indices (items,) of each split, from one data set or two."""
    generator = torch.Generator().manual_seed(options.seed)
    held_out = datasets[-1]
    order = torch.randperm(len(held_out), generator=generator)
    count = len(held_out) // 3 if len(datasets) == 1 else len(datasets[0])
    count = min(options.calibration_images, count)
    rest = order[count:] if len(datasets) == 1 else order
    if len(datasets) == 2:
        order = torch.randperm(len(datasets[0]), generator=generator)
    selection = selection_count(len(rest)) if confirm else len(rest)
    parts = {
        "calibration": (datasets[0], order[:count].sort().values),
        "selection": (held_out, rest[:selection].sort().values),
    }
    if confirm:
        parts["confirmation"] = (held_out, rest[selection:].sort().values)
    return parts


def _batches(dataset: Any, indices: Tensor, name: str, options: DataOptions) -> IndexedBatches:
    """Return batches of nearly equal size, at most ``batch_size`` items.

    There are 16 of them or more where each can hold two items.
    """

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
    return IndexedBatches(
        Items(partial(_read, dataset, name=name), join, options.memory_bytes),
        indices.tensor_split(count),
    )


def _item_tensors(dataset: Any, name: str, index: int) -> list[Tensor]:
    item = _read(dataset, index, name, lambda item: default_collate([item]))
    return [leaf for leaf in tree_leaves(item) if isinstance(leaf, Tensor)]


def _require_fixed(dataset: Any, name: str, read: Callable[[int], Sequence[Tensor]]) -> None:
    """Refuse a data set that is not map style, or gives other tensors when read again."""
    map_style = hasattr(dataset, "__len__") and hasattr(dataset, "__getitem__")
    if isinstance(dataset, IterableDataset) or not map_style:
        raise InputError(
            f"{name} must be a map-style data set with a length; got a {type(dataset).__name__}"
        )
    for index in range(min(len(dataset), REPEATED_ITEMS)):
        first, again = read(index), read(index)
        if len(first) != len(again) or not all(map(torch.equal, first, again)):
            raise InputError(
                f"{name} gives another item {index} each time; switch off its random augmentation"
            )


def _read(
    dataset: Any, index: int, name: str, change: Callable[[Any], Any] = lambda item: item
) -> Any:
    try:
        return change(dataset[index])
    except Exception as error:  # the user's code may raise anything
        raise InputError(f"{name}: reading item {index} failed: {first_line(error)}") from error
