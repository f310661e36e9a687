"""Re-solving: every consumer is fitted anew to what the original network's layer put out.

Repair keeps a layer's output for the inputs that it had in the *original* network; those of the
slim one are different. In network order, each consumer is solved in the least-squares sense for
the inputs that it really gets, towards the original's outputs, with a ridge that holds its weights
where they are. New weights stay only if the loss falls on images that they were not solved on.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from slimnet.groups import first_argument
from slimnet.measure import CLASSIFICATION, Task, mean_loss
from slimnet.records import Batches, Plan
from slimnet.recover.columns import Positions, add_constant, image_slices, output_rows, unfold
from slimnet.recover.moments import Moments, ridge_for
from slimnet.recover.repair import get_state, replaced, set_values

JUDGING_EVERY = 4


def resolve(
    original: nn.Module,
    slim: nn.Module,
    plan: Plan,
    moments: Mapping[str, Moments],
    batches: Batches,
    task: Task = CLASSIFICATION,
) -> int:
    """Change ``slim`` in place: fit its consumers to the original's outputs, where that helps.

    Args:
        original: the network before anything was removed; it is not changed.
        slim: what is left after ``plan``.
        plan: what was removed, in the original numbering.
        moments: of the consumers that can be repaired.
        batches: calibration images; a quarter of them judges, the rest solves.
        task: what the network is for.

    Returns:
        How many layers got new weights.
    """
    solving, judging = divide(batches, task)
    loss, changed = mean_loss(slim, judging, task), 0
    for name in _in_order(slim, moments, partial(task.outputs, slim, task.few(solving))):
        gone = plan.get(name, {}).get("out", ())
        values = _solve(original, slim, name, gone, moments[name].bias, solving, task)
        with replaced(slim, values):
            after = mean_loss(slim, judging, task)
        if after < loss:
            set_values(slim, values)
            loss, changed = after, changed + 1
    return changed


def divide(batches: Batches, task: Task = CLASSIFICATION) -> tuple[list[Any], list[Any]]:
    """Put every fourth image aside for judging, so that both parts hold the same classes.

    For a task that does not know single images it is every fourth batch.
    """
    solving: list[Any] = []
    judging: list[Any] = []
    if not task.by_image:
        for number, batch in enumerate(batches):
            part = judging if number % JUDGING_EVERY == JUDGING_EVERY - 1 else solving
            part.append(batch)
        return solving, judging or solving
    for inputs, labels in batches:
        judges = torch.arange(len(labels)) % JUDGING_EVERY == JUDGING_EVERY - 1
        for part, chosen in ((solving, ~judges), (judging, judges)):
            if chosen.any():
                part.append((inputs[chosen], labels[chosen]))
    return solving, judging or solving


def _in_order(slim: nn.Module, names: Mapping[str, object], run: Callable[[], object]) -> list[str]:
    """Return the layers in the order in which they run; not those that run more than once."""
    order: list[str] = []
    handles = [
        slim.get_submodule(name).register_forward_hook(lambda *_, name=name: order.append(name))
        for name in names
    ]
    with torch.no_grad():
        run()
    for handle in handles:
        handle.remove()
    return [name for name in order if order.count(name) == 1]


def _solve(
    original: nn.Module,
    slim: nn.Module,
    name: str,
    gone: Sequence[int],
    bias: str | None,
    batches: Sequence[Any],
    task: Task,
) -> dict[str, Tensor]:
    """Return the new weight and bias (or running mean) of one consumer, by name."""
    weight = slim.get_parameter(f"{name}.weight").detach()
    groups = int(getattr(slim.get_submodule(name), "groups", 1))
    matrix = weight.double().reshape(groups, -1, weight[0].numel())
    subtracted = bias is not None and "running_mean" in bias
    if bias is not None:
        offset = get_state(slim, bias).double() * (-1 if subtracted else 1)
        matrix = torch.cat([matrix, offset.reshape(groups, -1, 1)], 2)
    moment = torch.zeros(groups, matrix.shape[2], matrix.shape[2], dtype=torch.float64)
    cross = torch.zeros_like(matrix)
    layer = slim.get_submodule(name)
    kept = torch.ones(matrix.shape[0] * matrix.shape[1] + len(gone), dtype=torch.bool)
    kept[list(gone)] = False
    positions = Positions(sum(task.images(batch) for batch in batches))
    for batch in batches:
        read = _run(slim, name, partial(task.outputs, slim, batch))[0]
        written = _run(original, name, partial(task.outputs, original, batch))[1]
        for part in image_slices(layer, read):
            chosen = positions.choose(layer, written)
            columns = unfold(layer, read[part], chosen)
            columns = columns if bias is None else add_constant(columns)
            wanted = output_rows(layer, written[part], chosen)
            if subtracted and bias is not None:
                wanted = wanted - get_state(original, bias)[:, None]
            outputs = wanted[kept].reshape(groups, matrix.shape[1], -1)
            moment += (columns @ columns.transpose(1, 2)).double()
            cross += (outputs @ columns.transpose(1, 2)).double()
    ridge = ridge_for(moment)[:, None, None]
    identity = torch.eye(moment.shape[1], dtype=torch.float64)
    solved = torch.linalg.solve(moment + ridge * identity, cross + ridge * matrix, left=False)
    values = {f"{name}.weight": solved[:, :, : weight[0].numel()].reshape(weight.shape)}
    if bias is not None:
        values[bias] = solved[:, :, -1].flatten() * (-1 if subtracted else 1)
    return {key: value.to(weight.dtype) for key, value in values.items()}


class _ReachedError(BaseException):
    """The layer that was asked for has run; nothing behind it is needed.

    Not an Exception, which the network's or the task's own code might catch.
    """


def _run(model: nn.Module, name: str, run: Callable[[], object]) -> tuple[Tensor, Tensor]:
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
