"""Read live PyTorch data sets: map style, each item an image tensor and its label."""

from __future__ import annotations

import operator
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import Dataset, IterableDataset

from slimnet.data.source import (
    OF_OWN_TASK,
    WITHOUT_LABELS,
    Source,
    checked_labels,
    checked_pixels,
)
from slimnet.errors import InputError
from slimnet.load import first_line

REPEATED_ITEMS = 4  # a guess: random augmentation shows in the first items


def open_dataset(dataset: Dataset[Any], name: str, labelled: bool = True) -> Source:
    """Return the images of a live data set, which is not changed.

    Items are (tensor (C, H, W) uint8 or float, int). Labels come from ``dataset.targets`` if there
    is one, else from reading every item once. Where they are not ``labelled``, an item is a tensor
    or a tuple that begins with one.

    Raises:
        InputError: not map style, or items of another form, or items that change between reads.
    """
    if isinstance(dataset, IterableDataset) or not hasattr(dataset, "__len__"):
        raise InputError(f"{name} must be a map-style data set with a length; got an iterable one")
    images = len(dataset)
    dataset = dataset if labelled else _Unlabelled(dataset)
    for index in range(min(images, REPEATED_ITEMS)):
        first, again = _read_item(dataset, index, name), _read_item(dataset, index, name)
        if first[1] != again[1] or not torch.equal(first[0], again[0]):
            raise InputError(
                f"{name} gives another item {index} each time; switch off its random augmentation"
            )
    labels = checked_labels(_labels(dataset, images, name), images, name)

    def read(index: int) -> Tensor:
        image, label = _read_item(dataset, index, name)
        if label != int(labels[index]):
            raise InputError(
                f"{name}: item {index} has the label {label}, but targets says "
                f"{int(labels[index])}; make them the same"
            )
        return image

    return Source(name, read, labels)


class _Unlabelled(Dataset[Any]):
    """The images of a data set, each with the label 0."""

    def __init__(self, dataset: Dataset[Any]) -> None:
        self._dataset = dataset
        self.targets = torch.zeros(len(dataset), dtype=torch.int64)  # type: ignore[arg-type]

    def __getitem__(self, index: int) -> Any:
        item = self._dataset[index]
        return (item[0] if isinstance(item, (tuple, list)) and item else item, 0)


def _labels(dataset: Dataset[Any], images: int, name: str) -> Tensor:
    targets = getattr(dataset, "targets", None)
    if targets is not None and len(targets) == images:
        try:
            return torch.as_tensor(targets)
        except (TypeError, ValueError, RuntimeError):
            pass  # targets of another kind, such as names: the items have the labels
    return torch.tensor([_read_item(dataset, index, name)[1] for index in range(images)])


def _read_item(dataset: Dataset[Any], index: int, name: str) -> tuple[Tensor, int]:
    try:
        item = dataset[index]
    except Exception as error:  # the user's code may raise anything
        raise InputError(f"{name}: reading item {index} failed: {first_line(error)}") from error
    if not isinstance(item, (tuple, list)) or len(item) != 2 or not isinstance(item[0], Tensor):
        got = (
            f"({', '.join(type(part).__name__ for part in item)})"
            if isinstance(item, (tuple, list))
            else type(item).__name__
        )
        hint = f"; {WITHOUT_LABELS if isinstance(item, Tensor) else OF_OWN_TASK}"
        raise InputError(f"{name}: items are (image tensor, whole-number label); got {got}{hint}")
    return _checked_image(item[0], index, name), _checked_label(item[1], index, name)


def _checked_image(image: Tensor, index: int, name: str) -> Tensor:
    if image.ndim != 3:
        raise InputError(
            f"{name}: an image is (channels, height, width); item {index} is {tuple(image.shape)}"
        )
    return checked_pixels(image.detach().cpu(), f"{name}, item {index}")


def _checked_label(label: Any, index: int, name: str) -> int:
    try:
        if isinstance(label, bool):
            raise TypeError
        return operator.index(label)
    except (TypeError, RuntimeError):
        raise InputError(
            f"{name}: a label is a whole number; item {index} has a {type(label).__name__}"
        ) from None
