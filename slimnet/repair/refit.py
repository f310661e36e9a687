"""Refitting: layers of the slim network are fitted anew to the original network's outputs."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from slimnet.execution import (
    Call,
    ConstantOutput,
    PrefixCache,
    first_call,
    get_state,
    normed_layers,
    prepare_running,
    removed_layers,
    set_values,
    watching,
)
from slimnet.records import Plan
from slimnet.repair.columns import add_constant, output_rows, unfold
from slimnet.repair.repair import PENDING_ELEMENTS, bias_of, is_repairable, ridge_for
from slimnet.repair.teacher import TeacherOutputs, run_until, summed_layers

MIN_SCALE = 1e-2
"""Of the largest scale of a batch norm: what a channel of a smaller scale adds to a sum counts as
if it had this one. A guess; dividing by its own would ask the layer for huge values."""


MIN_ROWS_PER_COLUMN = 4
"""A guess: with fewer rows a layer would overfit them."""


def ridge_regression(matrix: Tensor, rows: Iterable[tuple[Tensor, Tensor]]) -> Tensor:
    """Return W with W x near to the targets y, and near to the matrix that it is now.

    With fewer than MIN_ROWS_PER_COLUMN rows it is the matrix that it is now.

    Args:
        matrix: W as it is, (groups, outputs, columns) float64; it is not changed.
        rows: parts of x (groups, columns, rows) and of y (groups, outputs, rows).
    """
    gram = matrix.new_zeros(len(matrix), matrix.shape[2], matrix.shape[2])
    cross, many = torch.zeros_like(matrix), 0
    for columns, targets in _in_large_parts(rows):
        many += columns.shape[2]
        gram += columns @ columns.transpose(1, 2)
        cross += targets @ columns.transpose(1, 2)
    if many < MIN_ROWS_PER_COLUMN * matrix.shape[2]:
        return matrix
    ridge = ridge_for(gram)
    # in place: the matrix of a large layer takes hundreds of MB
    gram.diagonal(dim1=1, dim2=2).add_(ridge[:, None])
    cross += ridge[:, None, None] * matrix
    solved: Tensor = torch.linalg.solve(gram, cross, left=False)
    return solved


def _in_large_parts(rows: Iterable[tuple[Tensor, Tensor]]) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield the rows in parts of about PENDING_ELEMENTS: few large products are faster."""
    waiting: list[tuple[Tensor, Tensor]] = []
    for part in rows:
        waiting.append(part)
        if sum(columns.numel() for columns, _ in waiting) >= PENDING_ELEMENTS:
            yield _joined(waiting)
            waiting = []
    if waiting:
        yield _joined(waiting)


def _joined(parts: Sequence[tuple[Tensor, Tensor]]) -> tuple[Tensor, Tensor]:
    if len(parts) == 1:
        return parts[0]
    columns, targets = (torch.cat(tensors, 2) for tensors in zip(*parts, strict=True))
    return columns, targets


@dataclass(frozen=True)
class FittedLayer:
    """A layer to be fitted, with the name of the bias or running mean that shifts its output.

    ``sums`` are the network's layers that aim at a sum; see ``summed_layers``.
    """

    name: str
    bias: str | None
    sums: Mapping[str, str | None]

    @property
    def modules(self) -> set[str]:
        """The modules that the layer's new values belong to."""
        return {self.name} if self.bias is None else {self.name, self.bias.rpartition(".")[0]}


def refit(
    teacher: TeacherOutputs,
    slim: nn.Module,
    plan: Plan,
    plan_at_last_refit: Plan | None = None,
    max_layers: int | None = None,
) -> int:
    """Change ``slim`` in place: fit its layers to the original's outputs, one after the other.

    A layer whose output is added to others aims at the original's sum, less what it is added to
    now: so it makes up for errors before it. All others aim at their own output. What is left of a
    branch that is gone is no longer added: the layers behind make up for it, and no addition stays.

    Args:
        teacher: the outputs of the original network's layers.
        slim: the network after ``plan``.
        plan: what is gone, in the original numbering.
        plan_at_last_refit: what was gone then. Layers that run before all that is gone since stay
            as they are. None: none was, or all layers have changed since.
        max_layers: the first layers behind the changes alone; None fits all.

    Returns:
        How many layers were fitted.
    """
    _drop_constants(teacher, slim)
    task, few = teacher.task, teacher.task.few(teacher.batches)
    running = prepare_running(slim, {}, partial(task.outputs, batch=few), teacher.memory)
    run_few = partial(task.outputs, slim, few)
    layers = _behind_changes(
        _layers_in_order(teacher, slim, run_few), running.calls, plan, plan_at_last_refit or {}
    )[:max_layers]
    teacher.gather([layer.name for layer in layers])
    with running.replay() as replay:
        cache = PrefixCache(replay, running.memory.activations, run_few)
        for layer in layers:
            # neither the fit of a layer nor its new values change anything before it
            cache.begin_at(first_call(running.calls, layer.modules))
            gone = plan.get(layer.name, {}).get("out", ())
            fitted = _fit(teacher, slim, layer, gone, cache)
            # what is read by layers that make no difference any more need not have been computed
            if all(bool(value.isfinite().all()) for value in fitted.values()):
                set_values(slim, fitted)
    return len(layers)


@torch.no_grad()
def _drop_constants(teacher: TeacherOutputs, slim: nn.Module) -> None:
    """Set to zero what layers without inputs add to sums, with the batch norms behind them."""
    for name, layer in removed_layers(slim).items():
        if not isinstance(layer, ConstantOutput) or name not in teacher.sums:
            continue
        norm = teacher.sums[name]
        shifts = [layer.bias]
        if norm is not None:
            behind: Any = slim.get_submodule(norm)
            shifts += [behind.running_mean, behind.bias]
        for shift in shifts:
            if shift is not None:
                shift.zero_()


def _layers_in_order(
    teacher: TeacherOutputs, slim: nn.Module, run: Callable[[], object]
) -> list[FittedLayer]:
    """Return the layers that can be fitted, in the order in which they run; each runs once."""
    names = [name for name, module in slim.named_modules() if is_repairable(module)]
    order: list[str] = []
    with torch.no_grad(), watching(slim, names, lambda name, *_: order.append(name)):
        run()
    pairs = normed_layers(slim, run)
    norms, sums = dict(pairs), summed_layers(slim, pairs, run)
    return [
        FittedLayer(
            name=name,
            bias=bias_of(slim, name, norms.get(name)),
            sums=sums,
        )
        for name in order
        if order.count(name) == 1 and (name in sums) == (name in teacher.sums)
    ]


def _behind_changes(
    layers: Sequence[FittedLayer], calls: Sequence[Call], plan: Plan, plan_at_last_refit: Plan
) -> list[FittedLayer]:
    """Return the layers whose inputs may have changed since the last refit."""
    changed = {name for name, axes in plan.items() if axes != plan_at_last_refit.get(name)}
    start = first_call(calls, changed)
    return [layer for layer in layers if changed and first_call(calls, {layer.name}) >= start]


def _fit(
    teacher: TeacherOutputs,
    slim: nn.Module,
    layer: FittedLayer,
    gone: Sequence[int],
    cache: PrefixCache,
) -> dict[str, Tensor]:
    """Return the new weight and bias (or running mean) of one layer, by name."""
    module, bias = slim.get_submodule(layer.name), layer.bias
    weight = slim.get_parameter(f"{layer.name}.weight").detach()
    groups = int(getattr(module, "groups", 1))
    matrix = weight.double().reshape(groups, -1, weight[0].numel())
    kept = torch.ones(len(weight) + len(gone), dtype=torch.bool)
    kept[list(gone)] = False
    sign = 1
    if bias is not None:
        # a running mean is subtracted from the output where a bias is added
        sign = -1 if "running_mean" in bias else 1
        constant = sign * get_state(slim, bias).detach().double()
        matrix = torch.cat([matrix, constant.reshape(groups, -1, 1)], 2)
    aim = _aim(teacher, slim, layer, kept)

    def rows() -> Iterator[tuple[Tensor, Tensor]]:
        for number, (batch, wanted) in enumerate(teacher.of(layer.name)):
            run = partial(cache.run, number, partial(teacher.task.outputs, slim, batch))
            read, other, _ = run_until(slim, layer.name, layer.sums, run)
            for target in wanted:
                columns = unfold(module, read[target.images], target.positions)
                columns = columns if bias is None else add_constant(columns)
                found = target.rows[kept]
                if other is not None:
                    found = found - output_rows(module, other[target.images], target.positions)
                yield columns, aim(found).reshape(groups, matrix.shape[1], -1)

    solved = ridge_regression(matrix, rows())
    values = {f"{layer.name}.weight": solved[:, :, : weight[0].numel()].reshape(weight.shape)}
    if bias is not None:
        values[bias] = sign * solved[:, :, -1].flatten()
    return {key: value.to(weight.dtype) for key, value in values.items()}


def _aim(
    teacher: TeacherOutputs, slim: nn.Module, layer: FittedLayer, kept: Tensor
) -> Callable[[Tensor], Tensor]:
    """Return a function from target rows (channels, rows) to those of weights and bias alone."""
    mean_is_bias = layer.bias is not None and "running_mean" in layer.bias
    norm_between = layer.sums.get(layer.name)
    if norm_between is None:
        if not mean_is_bias:
            return lambda rows: rows
        # the target is the output less the original's mean
        mean = get_state(teacher.original, str(layer.bias))[kept, None]
        return lambda rows: rows - mean
    # the norm is undone: it gives (rows - mean) * scale + shift
    norm: Any = slim.get_submodule(norm_between)
    scale = torch.rsqrt(norm.running_var + norm.eps) * (1 if norm.weight is None else norm.weight)
    least = MIN_SCALE * scale.abs().max().clamp_min(torch.finfo(scale.dtype).tiny)
    scale = torch.where(scale < 0, -1.0, 1.0) * scale.abs().clamp_min(least)
    shift = torch.zeros_like(scale) if norm.bias is None else norm.bias
    mean = torch.zeros_like(scale) if mean_is_bias else norm.running_mean
    scale, shift, mean = (part.detach()[:, None] for part in (scale, shift, mean))
    return lambda rows: (rows - shift) / scale + mean
