"""Read image folders, one sub-folder a class, and torchvision's own data sets from the disk."""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from slimnet.data.source import WITHOUT_LABELS, Parts, Source, checked_labels, no_labels
from slimnet.errors import InputError
from slimnet.options import nearest

EXTENSIONS = frozenset(
    (".bmp", ".gif", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp")
)
HELD_OUT_NAMES = ("val", "valid", "validation", "test")


def open_folder(folder: Path, labelled: bool = True) -> Parts:
    """Return the images below a folder; none is decoded yet.

    Classes are numbered in the order of their folders' names. Where the images are not
    ``labelled``, all are taken, at any depth.

    Raises:
        InputError: no class folders, or an empty one.
    """
    read, holding, what = (
        (_read_classes, _subfolders, "class folders")
        if labelled
        else (_read_unlabelled, _images_below, "images")
    )
    train_folder = folder / "train"
    if not holding(train_folder):
        return Parts(read(folder))
    for name in HELD_OUT_NAMES:
        if holding(folder / name):
            return Parts(held_out=read(folder / name), train=read(train_folder))
    raise InputError(
        f"{folder} has train/ but none of {', '.join(HELD_OUT_NAMES)}/ with {what}; "
        "accuracy is measured on images held out of training: add one of these folders"
    )


def to_tensor(image: Image.Image, grey: bool = False) -> Tensor:
    """Return a decoded image as uint8 (3, height, width), or (1, height, width) if ``grey``.

    Of several frames the first is taken. Transparency is dropped.

    Raises:
        InputError: float pixels, whose range is unknown.
    """
    if image.mode.startswith("F"):
        raise InputError("its pixels are floats; save them as integers, or all images as .npz")
    if image.mode.startswith("I"):  # 16 bits a pixel, which convert() would clip at 255
        wide = np.asarray(image).astype(np.int64)
        image = Image.fromarray((wide.clip(0, 65535) // 257).astype(np.uint8))
    elif image.mode == "P" and "transparency" in image.info:
        image = image.convert("RGBA")
    array = np.array(image.convert("L" if grey else "RGB"))
    return torch.from_numpy(array.reshape(*array.shape[:2], -1)).permute(2, 0, 1).contiguous()


def _subfolders(folder: Path) -> list[Path]:
    if not folder.is_dir():
        return []
    return sorted(p for p in folder.iterdir() if p.is_dir() and not p.name.startswith("."))


def _read_classes(folder: Path) -> Source:
    classes = _subfolders(folder)
    if not classes:
        hint = f"; {WITHOUT_LABELS}" if _image_files(folder) else ""
        raise InputError(
            f"{folder} holds no class folders; give <folder>/<class>/<image> files{hint}"
        )
    paths: list[Path] = []
    labels: list[int] = []
    for label, class_folder in enumerate(classes):
        found = _image_files(class_folder)
        if not found:
            raise InputError(
                f"class folder {class_folder} holds no images "
                f"({' '.join(sorted(EXTENSIONS))}); add some or remove the folder"
            )
        paths += found
        labels += [label] * len(found)
    names = tuple(path.name for path in classes)
    return Source(str(folder), lambda i: _decode(paths[i]), torch.tensor(labels), names)


def _read_unlabelled(folder: Path) -> Source:
    paths = _images_below(folder)
    if not paths:
        raise InputError(f"{folder} holds no images ({' '.join(sorted(EXTENSIONS))})")
    return Source(str(folder), lambda i: _decode(paths[i]), no_labels(len(paths)))


def _images_below(folder: Path) -> list[Path]:
    """Return all images in a folder and its sub-folders; none where it is no folder."""
    if not folder.is_dir():
        return []
    return _image_files(folder) + [p for sub in _subfolders(folder) for p in _images_below(sub)]


def _image_files(folder: Path) -> list[Path]:
    return sorted(
        path
        for path in folder.iterdir()
        if path.suffix.lower() in EXTENSIONS and not path.name.startswith(".") and path.is_file()
    )


def _decode(path: Path) -> Tensor:
    try:
        with Image.open(path) as image:
            return to_tensor(image)
    except InputError as error:
        raise InputError(f"image {path} cannot be used: {error}") from error
    except Exception as error:  # PIL's decoders raise many kinds
        raise InputError(
            f"image {path} cannot be decoded ({type(error).__name__}); repair it or remove it"
        ) from error


GREY = {"CIFAR10": False, "CIFAR100": False, "MNIST": True, "FashionMNIST": True, "KMNIST": True}


def open_torchvision(spec: str) -> Parts:
    """Return the train and test parts of ``NAME@ROOT``; nothing is downloaded.

    Raises:
        InputError: wrong form, no such data set, or its files are not below ROOT.
    """
    name, at, root = spec.partition("@")
    if not at or not root:
        raise InputError(f"a torchvision data set is torchvision:NAME@ROOT; got {spec!r}")
    if name not in GREY:
        raise InputError(f"no torchvision data set {name!r}{nearest(name, list(GREY))}")
    folder = Path(root).expanduser()
    train, test = (_open_part(name, folder, train) for train in (True, False))
    return Parts(held_out=test, train=train)


def _open_part(name: str, root: Path, train: bool) -> Source:
    from torchvision import datasets  # here, because it takes a second to import

    try:
        data: Any = getattr(datasets, name)(str(root), train=train, download=False)
    except Exception as error:  # missing and damaged files raise many kinds
        raise InputError(
            f"{root} does not hold the files of torchvision's {name}, or they are damaged; "
            "nothing is downloaded: put them there first"
        ) from error
    grey = GREY[name]
    label = f"torchvision:{name}@{root} ({'train' if train else 'test'} part)"
    labels = checked_labels(torch.as_tensor(data.targets), len(data), label)
    return Source(label, lambda i: to_tensor(data[i][0], grey), labels, tuple(data.classes))
