"""What is held back of calibration to judge by: every n-th image of each class, or n-th batch."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import compress
from typing import Any

import torch
from torch import Tensor

from slimnet.records import Batches


def images_held_back(labels: Tensor, every: int) -> Tensor:
    """Return which images are held back, (images,) bool: every n-th of each class, about.

    By their places it would not do: of ten classes in turn, every fourth image is of five.
    """
    return _every(labels.argsort(stable=True), every)


def batches_held_back(batches: int, every: int) -> Tensor:
    """Return which of so many batches are held back, (batches,) bool: every n-th."""
    return _every(torch.arange(batches), every)


def _every(order: Tensor, every: int) -> Tensor:
    held_back = torch.zeros(len(order), dtype=torch.bool)
    held_back[order[every - 1 :: every]] = True
    return held_back


@dataclass(frozen=True)
class WholeBatches:
    """The ``chosen`` ones, (batches,) bool, of some batches; implements ``records.Batches``."""

    batches: Batches
    chosen: Tensor

    def __iter__(self) -> Iterator[Any]:
        """Yield the batches."""
        return compress(self.batches, self.chosen.tolist())
