"""Refitting: layers of the slim network are fitted anew to the original network's outputs."""

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import cached_property, partial
from typing import Any

import torch
from torch import Tensor, nn

from slimnet.execution import (
    Call,
    MemoryBudget,
    PrefixCache,
    first_call,
    get_state,
    prepare_running,
    replaced,
    set_values,
    watching,
)
from slimnet.records import Batches, Plan
from slimnet.repair.columns import Positions, add_constant, image_slices, output_rows, unfold
from slimnet.repair.repair import InverseGram, ridge_for
from slimnet.tasks import CLASSIFICATION, Task, mean_loss

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

    The original is not changed. The batches fall into two parts: layers are fitted on ``fitting``,
    and by the loss on ``held_out``, a quarter of the images, new weights stay or go.
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


def ridge_regression(matrix: Tensor, rows: Iterable[tuple[Tensor, Tensor]]) -> Tensor:
    """Return W with W x near to the targets y, and near to the matrix that it is now.

    Args:
        matrix: W as it is, (groups, outputs, columns) float64; it is not changed.
        rows: parts of x (groups, columns, rows) and of y (groups, outputs, rows).
    """
    gram = matrix.new_zeros(len(matrix), matrix.shape[2], matrix.shape[2])
    cross = torch.zeros_like(matrix)
    for columns, targets in rows:
        gram += columns @ columns.transpose(1, 2)
        cross += targets @ columns.transpose(1, 2)
    ridge = ridge_for(gram)
    # in place: the matrix of a large layer takes hundreds of MB
    gram.diagonal(dim1=1, dim2=2).add_(ridge[:, None])
    cross += ridge[:, None, None] * matrix
    solved: Tensor = torch.linalg.solve(gram, cross, left=False)
    return solved


def refit(
    teacher: TeacherOutputs,
    slim: nn.Module,
    plan: Plan,
    inverse_grams: Mapping[str, InverseGram],
    plan_at_last_refit: Plan | None = None,
) -> int:
    """Change ``slim`` in place: fit its consumers to the original's outputs, one after the other.

    A layer keeps its new weights where they lower the loss on the images held out.

    Args:
        teacher: the outputs of the original network's layers.
        slim: the network after ``plan``.
        plan: what is gone, in the original numbering.
        inverse_grams: of the consumers that can be repaired.
        plan_at_last_refit: what was gone then. Layers that run before all that is gone since stay
            as they are. None: none was, or all layers have changed since.

    Returns:
        How many layers got new weights.
    """
    task, few = teacher.task, teacher.task.few(teacher.fitting)
    running = prepare_running(slim, {}, partial(task.outputs, batch=few), teacher.memory)
    run_few = partial(task.outputs, slim, few)
    order = _in_order(slim, inverse_grams, run_few)
    if plan_at_last_refit is not None:
        order = _behind_changes(order, running.calls, plan, plan_at_last_refit)
    if not order:
        return 0
    loss, changed = mean_loss(slim, teacher.held_out, task), 0
    teacher.gather(order)
    with running.replay() as replay:
        cache = PrefixCache(replay, running.memory.activations, run_few)
        for name in order:
            gone, bias = plan.get(name, {}).get("out", ()), inverse_grams[name].bias
            # neither the fit of a layer nor its new values change anything before it
            cache.begin_at(first_call(running.calls, _modules(name, bias)))
            values = _fit(teacher, slim, name, gone, bias, cache)
            with replaced(slim, values):
                after = mean_loss(slim, teacher.held_out, task, cache.run)
            if after < loss:
                set_values(slim, values)
                loss, changed = after, changed + 1
    return changed


def _modules(name: str, bias: str | None) -> set[str]:
    """Return the modules that a layer's new values belong to."""
    return {name} if bias is None else {name, bias.rpartition(".")[0]}


def _in_order(slim: nn.Module, names: Mapping[str, object], run: Callable[[], object]) -> list[str]:
    """Return the layers in the order in which they run; not those that run more than once."""
    order: list[str] = []
    with torch.no_grad(), watching(slim, names, lambda name, *_: order.append(name)):
        run()
    return [name for name in order if order.count(name) == 1]


def _behind_changes(
    order: Sequence[str], calls: Sequence[Call], plan: Plan, plan_at_last_refit: Plan
) -> list[str]:
    """Return the layers whose inputs may have changed since the last refit."""
    changed = {name for name, axes in plan.items() if axes != plan_at_last_refit.get(name)}
    start = first_call(calls, changed)
    return [name for name in order if changed and first_call(calls, {name}) >= start]


def _fit(
    teacher: TeacherOutputs,
    slim: nn.Module,
    name: str,
    gone: Sequence[int],
    bias: str | None,
    cache: PrefixCache,
) -> dict[str, Tensor]:
    """Return the new weight and bias (or running mean) of one consumer, by name."""
    layer, weight = slim.get_submodule(name), slim.get_parameter(f"{name}.weight").detach()
    groups = int(getattr(layer, "groups", 1))
    matrix = weight.double().reshape(groups, -1, weight[0].numel())
    kept = torch.ones(len(weight) + len(gone), dtype=torch.bool)
    kept[list(gone)] = False
    sign, offset = 1, torch.zeros(1, 1)
    if bias is not None:
        if "running_mean" in bias:
            # it is subtracted from the output: the target is the output less the original's mean
            sign, offset = -1, -get_state(teacher.original, bias)[kept, None]
        constant = sign * get_state(slim, bias).detach().double()
        matrix = torch.cat([matrix, constant.reshape(groups, -1, 1)], 2)

    def rows() -> Iterator[tuple[Tensor, Tensor]]:
        for number, (batch, wanted) in enumerate(teacher.of(name)):
            run = partial(teacher.task.outputs, slim, batch)
            read, _ = run_until(slim, name, partial(cache.run, ("fitting", number), run))
            for target in wanted:
                columns = unfold(layer, read[target.images], target.positions)
                columns = columns if bias is None else add_constant(columns)
                aim = target.rows[kept] + offset
                yield columns, aim.reshape(groups, matrix.shape[1], -1)

    solved = ridge_regression(matrix, rows())
    values = {f"{name}.weight": solved[:, :, : weight[0].numel()].reshape(weight.shape)}
    if bias is not None:
        values[bias] = sign * solved[:, :, -1].flatten()
    return {key: value.to(weight.dtype) for key, value in values.items()}
