"""The teacher: outputs of the original network's layers, which refitting aims at."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import cached_property, partial
from typing import Any

import torch
from torch import Tensor, nn

from slimnet.execution import MemoryBudget, watching
from slimnet.records import Batches
from slimnet.repair.columns import Positions, image_slices, output_rows
from slimnet.tasks import CLASSIFICATION, Task

HELD_OUT_EVERY = 4
"""A guess: a quarter of the images is enough to see whether a layer's fit lowers the loss."""


@dataclass(frozen=True)
class TeacherOutput:
    """One layer's output for a slice of a batch, (channels, rows): at some positions, or at all."""

    images: slice
    positions: Tensor | None
    rows: Tensor


class TeacherOutputs:
    """The outputs of the original network's layers: cached where there is room, else run again.

    The original is not changed. Layers are fitted on the batches ``fitting``. The others, a
    quarter of the images, are ``held_out``: by their loss new weights stay or go.
    """

    def __init__(
        self,
        original: nn.Module,
        batches: Batches,
        task: Task = CLASSIFICATION,
        memory: MemoryBudget | None = None,
    ) -> None:
        self.original, self.task = original, task
        self.memory = memory or MemoryBudget()
        self.fitting, self.held_out = task.batches(batches).hold_back(HELD_OUT_EVERY)
        self._cached: dict[str, list[list[TeacherOutput]]] = {}
        self._bytes = 0.0

    @property
    def cached(self) -> Collection[str]:
        """The names of the layers whose outputs are cached."""
        return self._cached.keys()

    def gather(self, names: Collection[str]) -> None:
        """Run the original once, and cache the outputs of those of these layers that fit."""
        positions = {n: Positions(self.images) for n in names if n not in self._cached}
        found: dict[str, list[list[TeacherOutput]]] | None = None
        for batch in self.fitting if positions else ():
            batches = None if found is not None else self.images / self.task.images(batch)
            seen = self._seen(batch, positions, batches)
            if found is None:
                found = {name: [] for name in positions if name in seen}
                positions = {name: positions[name] for name in found}
            if not found:
                break
            for name, outputs in found.items():
                outputs.append(seen.get(name, []))
        self._cached |= found or {}

    def of(self, name: str) -> Iterator[tuple[Any, list[TeacherOutput]]]:
        """Yield each batch to fit on, and the outputs of the layer of this name for it."""
        if name in self._cached:
            yield from zip(self.fitting, self._cached[name], strict=True)
            return
        layer, positions = self.original.get_submodule(name), Positions(self.images)
        for batch in self.fitting:
            run = partial(self.task.outputs, self.original, batch)
            yield batch, _cut(layer, positions, *run_until(self.original, name, run))

    @cached_property
    def images(self) -> int:
        """How many images there are to fit on."""
        return sum(self.task.images(batch) for batch in self.fitting)

    def _seen(
        self, batch: Any, positions: Mapping[str, Positions], batches: float | None
    ) -> dict[str, list[TeacherOutput]]:
        """Return the outputs of these layers for a batch, each time of their first call.

        With ``batches``, about how many there are of its size, layers are left out whose outputs
        for all batches would not fit; the room of the others is taken from then on.
        """
        seen: dict[str, list[TeacherOutput]] = {}

        def after(name: str, layer: nn.Module, read: Tensor, written: Tensor) -> None:
            if name in seen:
                return
            outputs = _cut(layer, positions[name], read, written)
            if batches is not None:
                nbytes = batches * sum(output.rows.nbytes for output in outputs)
                if self._bytes + nbytes > self.memory.teacher_outputs:
                    return
                self._bytes += nbytes
            # copies, since later modules may work in place
            seen[name] = [replace(output, rows=output.rows.clone()) for output in outputs]

        with torch.no_grad(), watching(self.original, positions, after):
            self.task.outputs(self.original, batch)
        return seen


def _cut(
    layer: nn.Module, positions: Positions, read: Tensor, written: Tensor
) -> list[TeacherOutput]:
    """Return a layer's output for one batch, cut into slices of images."""
    outputs = []
    for part in image_slices(layer, read):
        chosen = positions.choose(layer, written)
        outputs.append(TeacherOutput(part, chosen, output_rows(layer, written[part], chosen)))
    return outputs


class _ReachedError(BaseException):
    """The layer that was asked for has run, and those behind it need not.

    Not an Exception, which the network's or the task's own code might catch.
    """


def run_until(model: nn.Module, name: str, run: Callable[[], object]) -> tuple[Tensor, Tensor]:
    """Return the input and the output of the named layer while ``run`` runs the model."""
    seen: list[tuple[Tensor, Tensor]] = []

    def stop(_: str, __: nn.Module, read: Tensor, written: Tensor) -> None:
        seen.append((read, written))
        raise _ReachedError

    with torch.no_grad(), suppress(_ReachedError), watching(model, [name], stop):
        run()
    return seen[0]
