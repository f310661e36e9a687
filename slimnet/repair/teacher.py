"""The teacher: what layers of the original network put out, which refitting aims at.

A layer whose output is added to others, such as the last one of a residual block, aims at the sum:
so it makes up for the errors of all layers before it whose outputs are in the sum.
"""

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass, replace
from functools import cached_property, partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from slimnet.execution import PRODUCERS, MemoryBudget, normed_layers, watching
from slimnet.records import Batches
from slimnet.repair.columns import Positions, image_slices, output_rows
from slimnet.tasks import CLASSIFICATION, Task

REFIT_ROWS_PER_COLUMN = 24
"""A guess: a refit is near to the weights that there are, and needs fewer rows than a Gram matrix
alone. With 64 one of NIN takes most of a minute."""


@dataclass(frozen=True)
class TeacherOutput:
    """One layer's output for a slice of a batch, (channels, rows): at some positions, or at all."""

    images: slice
    positions: Tensor | None
    rows: Tensor


class TeacherOutputs:
    """The outputs of the original network's layers: cached where there is room, else run again.

    The original is not changed. Layers are fitted on ``batches``.
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
        self.batches = task.batches(batches)
        self._cached: dict[str, list[list[TeacherOutput]]] = {}
        self._bytes = 0.0

    def gather(self, names: Collection[str]) -> None:
        """Run the original once, and cache the targets of those of these layers that fit."""
        positions = {n: self._positions() for n in names if n not in self._cached}
        found: dict[str, list[list[TeacherOutput]]] | None = None
        for batch in self.batches if positions else ():
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
        """Yield each batch to fit on, and the targets of the layer of this name for it."""
        if name in self._cached:
            yield from zip(self.batches, self._cached[name], strict=True)
            return
        layer, positions = self.original.get_submodule(name), self._positions()
        for batch in self.batches:
            run = partial(self.task.outputs, self.original, batch)
            read, _, target = run_until(self.original, name, self.sums, run)
            yield batch, _cut(layer, positions, read, target)

    def _positions(self) -> Positions:
        return Positions(self.images, REFIT_ROWS_PER_COLUMN)

    @cached_property
    def images(self) -> int:
        """How many images there are to fit on."""
        return sum(self.task.images(batch) for batch in self.batches)

    @cached_property
    def sums(self) -> dict[str, str | None]:
        """The layers of the original that aim at a sum; see ``summed_layers``."""
        few = self.task.few(self.batches)
        run = partial(self.task.outputs, self.original, few)
        return summed_layers(self.original, normed_layers(self.original, run), run)

    def _seen(
        self, batch: Any, positions: Mapping[str, Positions], batches: float | None
    ) -> dict[str, list[TeacherOutput]]:
        """Return the targets of these layers for a batch, each time of their first call.

        With ``batches``, about how many there are of its size, layers are left out whose targets
        for all batches would not fit; the room of the others is taken from then on.
        """
        seen: dict[str, list[TeacherOutput]] = {}
        reads: dict[str, Tensor] = {}

        def take(name: str, read: Tensor, target: Tensor) -> None:
            if name in seen:
                return
            outputs = _cut(self.original.get_submodule(name), positions[name], read, target)
            if batches is not None:
                nbytes = batches * sum(output.rows.nbytes for output in outputs)
                if self._bytes + nbytes > self.memory.teacher_outputs:
                    return
                self._bytes += nbytes
            # copies, since later modules may work in place
            seen[name] = [replace(output, rows=output.rows.clone()) for output in outputs]

        def after(name: str, _: nn.Module, read: Tensor, written: Tensor) -> None:
            if name in self.sums:
                reads.setdefault(name, read)
            else:
                take(name, read, written)

        def add(name: str, _: Tensor, total: Tensor) -> None:
            take(name, reads[name], total)

        sums = {name: norm for name, norm in self.sums.items() if name in positions}
        with (
            torch.no_grad(),
            watching(self.original, positions, after),
            watching_sums(self.original, sums, add),
        ):
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


def run_until(
    model: nn.Module, name: str, sums: Mapping[str, str | None], run: Callable[[], object]
) -> tuple[Tensor, Tensor | None, Tensor]:
    """Return the input of the named layer, what its output is added to, and the sum.

    ``run`` runs the model, and is left as soon as these are known. For a layer that is not among
    ``sums``, see ``summed_layers``, nothing is added, and the sum is the output itself.
    """
    reads: list[Tensor] = []
    seen: list[tuple[Tensor | None, Tensor]] = []

    def after(_: str, __: nn.Module, read: Tensor, written: Tensor) -> None:
        reads.append(read)
        if name not in sums:
            reached(name, None, written)

    def reached(_: str, other: Tensor | None, total: Tensor) -> None:
        seen.append((other, total))
        raise _ReachedError

    own = {name: sums[name]} if name in sums else {}
    with (
        torch.no_grad(),
        suppress(_ReachedError),
        watching(model, [name], after),
        watching_sums(model, own, reached),
    ):
        run()
    return reads[0], *seen[0]


def summed_layers(
    model: nn.Module, norms: Iterable[tuple[str, str]], run: Callable[[], object]
) -> dict[str, str | None]:
    """Return the layers whose output is added to something of its shape, once.

    ``norms`` are the model's, see ``normed_layers``. ``run`` runs the model, which is not changed.
    Each layer comes with the batch norm between it and the sum, None where there is none.
    """
    by_layer: dict[str, list[str]] = {}
    for layer, norm in norms:
        by_layer.setdefault(layer, []).append(norm)
    candidates = {
        name: by_layer[name][0] if name in by_layer else None
        for name, module in model.named_modules()
        if isinstance(module, PRODUCERS) and len(by_layer.get(name, [])) < 2
    }
    found: list[str] = []
    with torch.no_grad(), watching_sums(model, candidates, lambda name, *_: found.append(name)):
        run()
    return {name: candidates[name] for name in candidates if found.count(name) == 1}


OnSum = Callable[[str, Tensor, Tensor], None]
"""Gets a layer's name, what its output was added to, and the sum."""


@contextmanager
def watching_sums(
    model: nn.Module, layers: Mapping[str, str | None], on_sum: OnSum
) -> Iterator[None]:
    """Call ``on_sum`` whenever the output of one of these layers is added within the block.

    ``layers`` maps each to the batch norm whose output is meant instead, or to None. The model is
    as before when the block ends.
    """
    additions = _Additions(on_sum)
    layer_of = {norm or layer: layer for layer, norm in layers.items()}

    def after(name: str, _: nn.Module, __: Tensor, output: Tensor) -> None:
        additions.operands.append((layer_of[name], output, output._version))

    # every function of torch takes longer within the mode
    with watching(model, layer_of, after), additions if layer_of else nullcontext():
        yield


class _Additions(TorchFunctionMode):
    """Sees every addition of two tensors of one shape while it is entered."""

    def __init__(self, on_sum: OnSum) -> None:
        super().__init__()
        self._on_sum = on_sum
        self.operands: list[tuple[str, Tensor, int]] = []

    def __torch_function__(
        self, function: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        """Run a function of torch; see TorchFunctionMode."""
        kwargs = kwargs or {}
        name = getattr(function, "__name__", "")
        if name not in ("add", "add_", "__iadd__", "__radd__") or len(args) != 2 or kwargs:
            return function(*args, **kwargs)
        found = [
            (layer, args[1 - place])
            for place in (0, 1)
            for layer, output, version in self.operands
            # code that works in place may have made something else of the output
            if args[place] is output and output._version == version
        ]
        alike = all(isinstance(arg, Tensor) for arg in args) and args[0].shape == args[1].shape
        if not found or not alike:
            return function(*args)
        others = [(layer, other.clone()) for layer, other in found]
        total = function(*args)
        for layer, other in others:
            self._on_sum(layer, other, total)
        return total
