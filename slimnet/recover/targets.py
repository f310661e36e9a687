"""What re-solving aims at: the outputs of the original network's layers on calibration images."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import cached_property, partial
from typing import Any

import torch
from torch import Tensor, nn

from slimnet.load.batches import labels_of
from slimnet.measure import CLASSIFICATION, Task
from slimnet.records import Batch, Batches
from slimnet.recover.columns import Positions, image_slices, output_rows
from slimnet.recover.held_back import WholeBatches, batches_held_back, images_held_back
from slimnet.recover.watching import watching

JUDGING_EVERY = 4
MOST_ELEMENTS = 2**25


@dataclass(frozen=True)
class Target:
    """What one layer put out for a slice of a batch: (channels, rows) at some positions, or all."""

    images: slice
    positions: Tensor | None
    rows: Tensor


class Targets:
    """Targets of every layer: kept where they were gathered and memory allows, else run again.

    The original is not changed. ``solving`` are the batches to fit layers on, ``judging`` the
    others: a quarter of the images, by whose loss new weights stay or go.
    """

    def __init__(self, original: nn.Module, batches: Batches, task: Task = CLASSIFICATION) -> None:
        self.original, self.task = original, task
        self.solving, self.judging = divide(batches, task)
        self._kept: dict[str, list[list[Target]]] = {}
        self._elements = 0.0

    def gather(self, names: Collection[str]) -> None:
        """Run the original once for all of these layers that memory has room for."""
        positions = {n: Positions(self.images) for n in names if n not in self._kept}
        found: dict[str, list[list[Target]]] | None = None
        for batch in self.solving if positions else ():
            batches = None if found is not None else self.images / self.task.images(batch)
            seen = self._seen(batch, positions, batches)
            if found is None:
                found = {name: [] for name in positions if name in seen}
                positions = {name: positions[name] for name in found}
            if not found:
                break
            for name, targets in found.items():
                targets.append(seen.get(name, []))
        self._kept |= found or {}

    def of(self, name: str) -> Iterator[tuple[Any, list[Target]]]:
        """Yield each solving batch and what the layer of this name put out for it."""
        if name in self._kept:
            yield from zip(self.solving, self._kept[name], strict=True)
            return
        layer, positions = self.original.get_submodule(name), Positions(self.images)
        for batch in self.solving:
            run = partial(self.task.outputs, self.original, batch)
            yield batch, _cut(layer, positions, *run_until(self.original, name, run))

    @cached_property
    def images(self) -> int:
        """How many images there are to solve on."""
        return sum(self.task.images(batch) for batch in self.solving)

    def _seen(
        self, batch: Any, positions: Mapping[str, Positions], batches: float | None
    ) -> dict[str, list[Target]]:
        """Return what each of these layers puts out for a batch when it first runs.

        With ``batches``, about as many as there are of its size, only that of layers for all of
        whose batches there is room, which is then theirs.
        """
        seen: dict[str, list[Target]] = {}

        def watch(name: str, layer: nn.Module, read: Tensor, written: Tensor) -> None:
            if name in seen:
                return
            targets = _cut(layer, positions[name], read, written)
            if batches is not None:
                elements = batches * sum(target.rows.numel() for target in targets)
                if self._elements + elements > MOST_ELEMENTS:
                    return
                self._elements += elements
            # copies, since what comes next may work in place
            seen[name] = [replace(target, rows=target.rows.clone()) for target in targets]

        with torch.no_grad(), watching(self.original, positions, watch):
            self.task.outputs(self.original, batch)
        return seen


def _cut(layer: nn.Module, positions: Positions, read: Tensor, written: Tensor) -> list[Target]:
    """Return what a layer read and put out for one batch as targets, in slices that fit."""
    targets = []
    for part in image_slices(layer, read):
        chosen = positions.choose(layer, written)
        targets.append(Target(part, chosen, output_rows(layer, written[part], chosen)))
    return targets


def divide(batches: Batches, task: Task = CLASSIFICATION) -> tuple[Batches, Batches]:
    """Put every fourth image of each class aside for judging.

    For a task that does not know single images it is every fourth batch. Where none would judge,
    the images to solve on do. Both parts are taken from the batches as they go by.
    """
    part: Callable[[Batches, Tensor], Batches]
    if task.by_image:
        part, judges = _FullBatches, images_held_back(labels_of(batches), JUDGING_EVERY)
    else:
        many = sum(1 for _ in batches)
        part, judges = WholeBatches, batches_held_back(many, JUDGING_EVERY)
    solving = part(batches, ~judges)
    return solving, part(batches, judges) if judges.any() else solving


@dataclass(frozen=True)
class _FullBatches:
    """The ``chosen`` images, (images,) bool, of some batches; implements ``records.Batches``."""

    batches: Batches
    chosen: Tensor

    def __iter__(self) -> Iterator[Batch]:
        """Yield batches as large as those that they are taken from, since that pays."""
        size, passed, waiting = 0, 0, []
        for inputs, labels in self.batches:
            size = max(size, len(labels))
            chosen = self.chosen[passed : passed + len(labels)]
            passed += len(labels)
            waiting.append((inputs[chosen], labels[chosen]))
            if sum(len(labels) for _, labels in waiting) >= size:
                images, classes = map(torch.cat, zip(*waiting, strict=True))
                yield images[:size], classes[:size]
                waiting = [(images[size:], classes[size:])]
        images, classes = map(torch.cat, zip(*waiting, strict=True))
        if len(classes):
            yield images, classes


class _ReachedError(BaseException):
    """The layer that was asked for has run; nothing behind it is needed.

    Not an Exception, which the network's or the task's own code might catch.
    """


def run_until(model: nn.Module, name: str, run: Callable[[], object]) -> tuple[Tensor, Tensor]:
    """Return what the named layer reads and what it puts out while ``run`` runs the model."""
    seen: list[tuple[Tensor, Tensor]] = []

    def stop(_: str, __: nn.Module, read: Tensor, written: Tensor) -> None:
        seen.append((read, written))
        raise _ReachedError

    with torch.no_grad(), suppress(_ReachedError), watching(model, [name], stop):
        run()
    return seen[0]
