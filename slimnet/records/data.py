"""What goes in: the images in three splits, and the loaded network."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from torch import Tensor, nn

Batch = tuple[Tensor, Tensor]
"""Preprocessed inputs (images, ...) and labels (images,) int64."""


Inputs = Tensor | tuple[Tensor, ...]
"""What a network reads, (images, ...): one tensor, or several as positional arguments."""


class Batches(Protocol):
    """Something that can be iterated over again and again, always giving the same batches.

    They are ``Batch`` for classification, and whatever the data give for a task of the user's own.
    """

    def __iter__(self) -> Iterator[Any]: ...


@dataclass(frozen=True)
class Split:
    """One part of the data. ``images`` is how many images its batches hold together."""

    name: str
    images: int
    batches: Batches


@dataclass(frozen=True)
class Splits:
    """Calibration: saliency and oracle. Selection: the budget. Test: the final report only.

    ``description`` says in one sentence where each part came from. ``classes`` is the number of
    classes where the data names them (image folders), else None. ``preprocessing`` is how pixels
    became inputs, as it goes into the report.
    """

    calibration: Split
    selection: Split
    test: Split
    description: str
    classes: int | None
    preprocessing: Mapping[str, Any]


@dataclass(frozen=True)
class LoadedModel:
    """A trained network in eval mode on the CPU, and where it came from.

    ``sha256`` is the file's hash, or None for a live module. ``source`` names it for the report,
    which gives the ``notes`` too.
    """

    model: nn.Module
    source: str
    sha256: str | None
    notes: tuple[str, ...] = ()
