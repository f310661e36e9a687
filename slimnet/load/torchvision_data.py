"""Read torchvision's own data sets from the disk: ``torchvision:CIFAR10@ROOT``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from slimnet.errors import InputError
from slimnet.load.images import to_tensor
from slimnet.load.source import Parts, Source, checked_labels
from slimnet.settings import nearest

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
