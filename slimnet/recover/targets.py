"""What re-solving aims at: the outputs of the original network's layers on calibration images."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from slimnet.groups import first_argument
from slimnet.measure import CLASSIFICATION, Task
from slimnet.records import Batches
from slimnet.recover.columns import Positions, image_slices, output_rows

JUDGING_EVERY = 4
MOST_ELEMENTS = 2**25


@dataclass(frozen=True)
class Target:
    """What one layer put out for a slice of a batch: (channels, rows) at some positions, or all."""

    images: slice
    positions: Tensor | None
    rows: Tensor


class Targets:
    """Targets of every layer, run when first asked for, and kept as far as memory allows.

    The original is not changed. ``solving`` are the batches to fit layers on, ``judging`` the
    others: a quarter of the images, by whose loss new weights stay or go.
    """

    def __init__(self, original: nn.Module, batches: Batches, task: Task = CLASSIFICATION) -> None:
        self.original, self.task = original, task
        self.solving, self.judging = divide(batches, task)
        self._kept: dict[str, list[list[Target]]] = {}
        self._elements = 0

    def of(self, name: str) -> Iterator[tuple[Any, list[Target]]]:
        """Yield each solving batch and what the layer of this name put out for it."""
        if name in self._kept:
            yield from zip(self.solving, self._kept[name], strict=True)
            return
        layer, found, elements = self.original.get_submodule(name), [], self._elements
        positions = Positions(sum(self.task.images(batch) for batch in self.solving))
        for batch in self.solving:
            read, written = run_until(
                self.original, name, partial(self.task.outputs, self.original, batch)
            )
            targets = []
            for part in image_slices(layer, read):
                chosen = positions.choose(layer, written)
                targets.append(Target(part, chosen, output_rows(layer, written[part], chosen)))
            elements += sum(target.rows.numel() for target in targets)
            found.append(targets if elements <= MOST_ELEMENTS else [])
            yield batch, targets
        if elements <= MOST_ELEMENTS:
            self._kept[name], self._elements = found, elements


def divide(batches: Batches, task: Task = CLASSIFICATION) -> tuple[Batches, Batches]:
    """Put every fourth image aside for judging, so that both parts hold the same classes.

    For a task that does not know single images it is every fourth batch. Where none would judge,
    the images to solve on do. Both parts are taken from the batches as they go by.
    """
    solving, judging = (_Part(batches, task.by_image, judges) for judges in (False, True))
    return solving, judging if any(True for _ in judging) else solving


@dataclass(frozen=True)
class _Part:
    """The images of some batches, or whole batches, that judge, or those that do not."""

    batches: Batches
    by_image: bool
    judges: bool

    def __iter__(self) -> Iterator[Any]:
        """Yield batches of what belongs to this part."""
        for number, batch in enumerate(self.batches):
            if not self.by_image:
                if (number % JUDGING_EVERY == JUDGING_EVERY - 1) == self.judges:
                    yield batch
                continue
            inputs, labels = batch
            last = torch.arange(len(labels)) % JUDGING_EVERY == JUDGING_EVERY - 1
            chosen = last == self.judges
            if chosen.any():
                yield inputs[chosen], labels[chosen]


class _ReachedError(BaseException):
    """The layer that was asked for has run; nothing behind it is needed.

    Not an Exception, which the network's or the task's own code might catch.
    """


def run_until(model: nn.Module, name: str, run: Callable[[], object]) -> tuple[Tensor, Tensor]:
    """Return what the named layer reads and what it puts out while ``run`` runs the model."""
    seen: list[tuple[Tensor, Tensor]] = []

    def stop(_: nn.Module, args: Any, kwargs: Any, written: Tensor) -> None:
        seen.append((first_argument(args, kwargs), written))
        raise _ReachedError

    handle = model.get_submodule(name).register_forward_hook(stop, with_kwargs=True)
    try:
        with torch.no_grad(), suppress(_ReachedError):
            run()
    finally:
        handle.remove()
    return seen[0]
