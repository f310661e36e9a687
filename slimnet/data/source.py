"""A set of labelled raw inputs, most often images, whatever it is read from."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from slimnet.errors import InputError

WITHOUT_LABELS = "for images without labels, give --labels none"
OF_OWN_TASK = "for anything but one label an input, say what the network is for with --task"
GIVEN_NAMES = ("calibration", "selection", "test")  # of three data sets


@dataclass(frozen=True)
class Source:
    """Raw inputs and their labels.

    ``read`` gives input number i, uint8 or float32: an image (channels, height, width), a signal
    (channels, length), a video (channels, frames, height, width), or whatever a network takes;
    what is no image may be int64. ``labels`` is (inputs,) int64. ``class_names`` where the data
    names its classes, else None. ``kind`` is what messages call the inputs.
    """

    name: str
    read: Callable[[int], Tensor]
    labels: Tensor
    class_names: tuple[str, ...] | None = None
    kind: str = "images"

    def __len__(self) -> int:
        """Return the number of inputs."""
        return len(self.labels)


@dataclass(frozen=True)
class Parts:
    """The inputs of a data set that are held out of training; training and test parts if any."""

    held_out: Source
    train: Source | None = None
    test: Source | None = None


def no_labels(images: int) -> Tensor:
    """Return the label 0 for every input of a source without labels, (images,) int64."""
    return torch.zeros(images, dtype=torch.int64)


def kind_of(item: Tensor) -> str:
    """Return what messages call an input of this shape, which has no batch axis."""
    return "images" if item.ndim == 3 else "inputs"


def checked_labels(labels: Tensor, inputs: int, name: str, kind: str = "images") -> Tensor:
    """Return labels as (inputs,) int64; they may be bool, (inputs, 1) or one-hot.

    Raises:
        InputError: not whole numbers of 0 or more, another shape, or not one for each input.
    """
    if inputs == 0:
        raise InputError(f"{name} holds no {kind}")
    got = f"got {labels.dtype} of the shape {tuple(labels.shape)}"
    if labels.ndim == 2 and is_one_hot(labels):
        labels = labels.int().argmax(1)
    if labels.dtype.is_floating_point or labels.dtype.is_complex:
        raise InputError(f"{name}: labels are whole numbers; {got}; {OF_OWN_TASK}")
    if labels.ndim == 2 and labels.shape[1] == 1:
        labels = labels[:, 0]
    if labels.ndim != 1:
        raise InputError(f"{name}: labels have the shape ({kind},); {got}; {OF_OWN_TASK}")
    if len(labels) != inputs:
        one = kind.removesuffix("s")
        article = "an" if one[0] in "aeiou" else "a"
        raise InputError(
            f"{name}: one label {article} {one}; got {len(labels)} for {inputs} {kind}"
        )
    labels = labels.to(torch.int64)
    if int(labels.min()) < 0:
        raise InputError(f"{name}: labels are 0 or more; got {int(labels.min())}")
    return labels


def is_one_hot(labels: Tensor) -> bool:
    """Return whether each row (..., classes) of two or more has a single 1, and else zeros."""
    ones = labels == 1
    only = bool((ones | (labels == 0)).all()) and bool((ones.sum(-1) == 1).all())
    return labels.shape[-1] > 1 and labels.numel() > 0 and only


def checked_values(values: Tensor, name: str, kind: str = "images") -> Tensor:
    """Return values as uint8, float32 or, where they are no images, int64; of the same shape.

    Raises:
        InputError: of another type, or not finite.
    """
    if values.dtype == torch.uint8:
        return values
    if not values.is_floating_point():
        if kind == "images" or values.is_complex() or values.dtype == torch.bool:
            raise InputError(f"{name}: {kind} are uint8 or float; got {values.dtype}")
        return values.to(torch.int64)
    values = values.float()
    if not bool(values.isfinite().all()):
        raise InputError(f"{name}: {kind} hold NaN or infinite values; remove them")
    return values


def require_images(split: str, images: int, fewest: int, source: str, kind: str = "images") -> None:
    """Refuse a split of fewer images.

    Raises:
        InputError: there are fewer.
    """
    if images < fewest:
        raise InputError(
            f"the {split} split needs {fewest} {kind} or more, but gets {images} from {source}: "
            f"give more {kind}"
        )
