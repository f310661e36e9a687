"""A set of labelled raw images, whatever it is read from."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from slimnet.errors import InputError

WITHOUT_LABELS = "for images without labels, give --labels none"
OF_OWN_TASK = "for anything but one label an image, say what the network is for with --task"
GIVEN_NAMES = ("calibration", "selection", "test")  # of three data sets


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
    """The images of a data set that are held out of training; training and test parts if any."""

    held_out: Source
    train: Source | None = None
    test: Source | None = None


def no_labels(images: int) -> Tensor:
    """Return the label 0 for every image of a source without labels, (images,) int64."""
    return torch.zeros(images, dtype=torch.int64)


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


def checked_pixels(images: Tensor, name: str) -> Tensor:
    """Return pixels as uint8 or float32, of the same shape.

    Raises:
        InputError: of another type, or not finite.
    """
    if images.dtype == torch.uint8:
        return images
    if not images.is_floating_point():
        raise InputError(f"{name}: images are uint8 or float; got {images.dtype}")
    images = images.float()
    if not bool(images.isfinite().all()):
        raise InputError(f"{name}: images hold NaN or infinite values; remove them")
    return images


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
