"""A set of labelled raw images, whatever it is read from."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from slimnet.errors import InputError

WITHOUT_LABELS = "for images without labels, give --labels none"
OF_OWN_TASK = "for anything but one label an image, say what the network is for with --task"


@dataclass(frozen=True)
class Source:
    """Raw images and their labels.

    ``read`` gives image number i as (channels, height, width), uint8 or float32. ``labels`` is
    (images,) int64. ``class_names`` where the data names its classes, else None.
    """

    name: str
    read: Callable[[int], Tensor]
    labels: Tensor
    class_names: tuple[str, ...] | None = None

    def __len__(self) -> int:
        """Return the number of images."""
        return len(self.labels)


@dataclass(frozen=True)
class Parts:
    """What a data set is made of: images held out of training, and the training part if any."""

    held_out: Source
    train: Source | None = None


def no_labels(images: int, name: str) -> Tensor:
    """Return what stands in a source without labels: 0 for every image.

    Raises:
        InputError: there are no images.
    """
    return checked_labels(torch.zeros(images, dtype=torch.int64), images, name)


def checked_labels(labels: Tensor, images: int, name: str) -> Tensor:
    """Return labels as int64.

    Raises:
        InputError: not whole numbers of 0 or more, not 1-D, or not one for each image.
    """
    if labels.dtype.is_floating_point or labels.dtype.is_complex or labels.dtype == torch.bool:
        raise InputError(f"{name}: labels are whole numbers; got {labels.dtype}")
    if labels.ndim != 1:
        raise InputError(f"{name}: labels have the shape (images,); got {tuple(labels.shape)}")
    if len(labels) != images:
        raise InputError(f"{name}: one label an image; got {len(labels)} for {images} images")
    if images == 0:
        raise InputError(f"{name} holds no images")
    labels = labels.to(torch.int64)
    if int(labels.min()) < 0:
        raise InputError(f"{name}: labels are 0 or more; got {int(labels.min())}")
    return labels
