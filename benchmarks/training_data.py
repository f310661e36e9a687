"""Whole data sets as uint8 arrays in memory, for training, and the inputs made from them.

They come from .npz files, torchvision's data sets, image folders, or a zip of image folders. Images
of the latter two are decoded once and written to .npz files, which slimnet reads as well.
"""

from __future__ import annotations

import io
import zipfile
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy
import paper
import torch
from PIL import Image
from torch import Tensor

PADDING = 4
SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".webp")
HELD_OUT_NAMES = ("test", "val")
Opener = Callable[[str], io.BytesIO]


class DataError(Exception):
    """The data cannot be read. The message has the reason, and the form that is wanted."""


@dataclass(frozen=True)
class Images:
    """``images`` (N, H, W, 3) uint8 RGB and ``labels`` (N,) int64."""

    images: numpy.ndarray
    labels: numpy.ndarray


def read_data(data: str, held_out: str | None, cache: Path) -> tuple[Images, Images]:
    """Return the images to train on, and those to test on.

    Args:
        data: torchvision:NAME@ROOT, a folder or a zip with train/CLASS/* and test/CLASS/*, or an
            .npz of ``images`` and ``labels``.
        held_out: an .npz of test images, if ``data`` is an .npz.
        cache: folder for decoded images, NAME_train.npz and NAME_test.npz.

    Raises:
        DataError: the data are missing, or have another form.
    """
    if data.startswith("torchvision:"):
        return _from_torchvision(data.removeprefix("torchvision:"))
    path = Path(data)
    if not path.exists():
        raise DataError(f"there is no {data}")
    if path.suffix == ".npz":
        if held_out is None:
            raise DataError("an .npz holds one part of the data: name the other with --held-out")
        return _from_arrays(path), _from_arrays(Path(held_out))
    files = [cache / f"{path.stem}_{part}.npz" for part in ("train", "test")]
    if not all(file.exists() for file in files):
        for file, found in zip(files, _decoded(path), strict=True):
            cache.mkdir(parents=True, exist_ok=True)
            partial = file.with_name(f".{file.name}")
            numpy.savez(partial, images=found.images, labels=found.labels)
            partial.replace(file)
    return _from_arrays(files[0]), _from_arrays(files[1])


def _from_arrays(path: Path) -> Images:
    try:
        with numpy.load(path, allow_pickle=False) as arrays:
            found = Images(arrays["images"], arrays["labels"].astype(numpy.int64))
    except (OSError, ValueError, KeyError) as error:
        raise DataError(f"{path} must hold the arrays images and labels: {error}") from error
    if found.images.ndim != 4 or found.images.shape[3] != 3 or found.images.dtype != numpy.uint8:
        raise DataError(f"{path}: images must be (N, H, W, 3) uint8; got {found.images.shape}")
    return found


def _from_torchvision(spec: str) -> tuple[Images, Images]:
    from torchvision import datasets  # here, because it takes a second to import

    name, _, root = spec.partition("@")
    try:
        parts = [getattr(datasets, name)(root, train=train) for train in (True, False)]
        train, test = (Images(part.data, numpy.asarray(part.targets)) for part in parts)
    except (AttributeError, RuntimeError) as error:
        raise DataError(f"torchvision:NAME@ROOT, CIFAR10 or CIFAR100: {error}") from error
    return train, test


def _decoded(path: Path) -> tuple[Images, Images]:
    if path.is_dir():
        names = sorted(str(file.relative_to(path)) for file in path.glob("*/*/*"))
        return _parts(names, lambda name: io.BytesIO((path / name).read_bytes()), path)
    with zipfile.ZipFile(path) as archive:
        return _parts(archive.namelist(), lambda name: io.BytesIO(archive.read(name)), path)


def _parts(names: Iterable[str], opened: Opener, path: Path) -> tuple[Images, Images]:
    by_part: dict[str, list[str]] = {}
    for name in sorted(names):
        parts = Path(name).parts
        if len(parts) == 3 and name.lower().endswith(SUFFIXES):
            by_part.setdefault(parts[0], []).append(name)
    other = next((part for part in HELD_OUT_NAMES if part in by_part), None)
    if "train" not in by_part or other is None:
        raise DataError(f"{path} must hold train/CLASS/* and test/CLASS/*; got {sorted(by_part)}")
    return _read_part(by_part["train"], opened), _read_part(by_part[other], opened)


def _read_part(names: list[str], opened: Opener) -> Images:
    classes = sorted({Path(name).parts[1] for name in names})
    images = [numpy.asarray(Image.open(opened(name)).convert("RGB")) for name in names]
    if len({image.shape for image in images}) != 1:
        raise DataError("images must all have one size, 32 x 32 for these networks")
    labels = [classes.index(Path(name).parts[1]) for name in names]
    return Images(numpy.stack(images), numpy.array(labels, numpy.int64))


def prepared(pixels: Tensor, network: str) -> Tensor:
    """Return (N, H, W, 3) uint8 RGB pixels as inputs (N, 3, H, W), channels last in memory."""
    preprocessing = paper.preprocessing(network)
    inputs: Tensor = pixels.flip(3).float() * preprocessing["scale"]
    if preprocessing["mean"] is not None:
        inputs -= torch.tensor(preprocessing["mean"])
    return inputs.permute(0, 3, 1, 2)


def augmented(padded: Tensor, generator: torch.Generator) -> Tensor:
    """Return a random crop of each padded image (N, H, W, 3), half of them mirrored."""
    count, size = len(padded), padded.shape[1] - 2 * PADDING
    corners = torch.randint(2 * PADDING + 1, (2, count, 1), generator=generator)
    rows, columns = corners + torch.arange(size)
    mirrored = torch.rand(count, generator=generator) < 0.5
    columns[mirrored] = columns[mirrored].flip(1)
    return padded[torch.arange(count)[:, None, None], rows[:, :, None], columns[:, None, :]]
