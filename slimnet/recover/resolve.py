"""Re-solving: every consumer is fitted anew to what the original network's layer put out.

Repair keeps a layer's output for the inputs that it had in the *original* network; those of the
slim one are different. In network order, each consumer is solved in the least-squares sense for
the inputs that it really gets, towards the original's outputs, with a ridge that holds its weights
where they are. New weights stay only if the loss falls on images that they were not solved on.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial

import torch
from torch import Tensor, nn

from slimnet.measure import mean_loss
from slimnet.records import Plan
from slimnet.recover.columns import add_constant, unfold
from slimnet.recover.frontier import Frontier
from slimnet.recover.moments import Moments, ridge_for
from slimnet.recover.repair import get_state, replaced, set_values
from slimnet.recover.targets import Targets, run_until
from slimnet.recover.trace import first_call, trace_calls
from slimnet.recover.watching import watching


def resolve(targets: Targets, slim: nn.Module, plan: Plan, moments: Mapping[str, Moments]) -> int:
    """Change ``slim`` in place: fit its consumers to the original's outputs, where that helps.

    Args:
        targets: what the layers of the network put out before anything was removed.
        slim: what is left after ``plan``.
        plan: what was removed, in the original numbering.
        moments: of the consumers that can be repaired.

    Returns:
        How many layers got new weights.
    """
    task, judging = targets.task, targets.judging
    loss, changed = mean_loss(slim, judging, task), 0
    few = partial(task.outputs, slim, task.few(targets.solving))
    calls = trace_calls(slim, few)
    order = _in_order(slim, moments, few)
    targets.gather(order)
    # whole batches take too much memory where gradients are asked for
    with Frontier(slim, calls, few if task.by_image else None) as frontier:
        for name in order:
            gone = plan.get(name, {}).get("out", ())
            # neither what solves a layer nor its new values change anything before it
            frontier.begin_at(first_call(calls, _modules(name, moments[name].bias)))
            values = _solve(targets, slim, name, gone, moments[name].bias, frontier)
            with replaced(slim, values):
                after = mean_loss(slim, judging, task, frontier.run)
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


def _solve(
    targets: Targets,
    slim: nn.Module,
    name: str,
    gone: Sequence[int],
    bias: str | None,
    frontier: Frontier,
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
    for number, (batch, wanted) in enumerate(targets.of(name)):
        run = partial(targets.task.outputs, slim, batch)
        read, _ = run_until(slim, name, partial(frontier.run, ("solving", number), run))
        for target in wanted:
            columns = unfold(layer, read[target.images], target.positions)
            columns = columns if bias is None else add_constant(columns)
            rows = target.rows[kept]
            if subtracted and bias is not None:
                rows = rows - get_state(targets.original, bias)[kept, None]
            outputs = rows.reshape(groups, matrix.shape[1], -1)
            moment += columns @ columns.transpose(1, 2)
            cross += outputs @ columns.transpose(1, 2)
    ridge = ridge_for(moment)[:, None]
    # in place, because a large layer's moments take hundreds of megabytes
    moment.diagonal(dim1=1, dim2=2).add_(ridge)
    cross.add_(ridge[:, None] * matrix)
    solved = torch.linalg.solve(moment, cross, left=False)
    values = {f"{name}.weight": solved[:, :, : weight[0].numel()].reshape(weight.shape)}
    if bias is not None:
        values[bias] = solved[:, :, -1].flatten() * (-1 if subtracted else 1)
    return {key: value.to(weight.dtype) for key, value in values.items()}
