"""Re-solving: consumers are fitted anew to what the original network's layers put out.

Repair keeps a layer's output for the inputs that it had in the *original* network; those of the
slim one are different. In network order, each consumer is solved in the least-squares sense for
the inputs that it really gets, towards the original's outputs, with a ridge that holds its weights
where they are. New weights stay only if the loss falls on
images that they were not solved on. Whatever reads what it read the last time is left out.
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
from slimnet.recover.least_squares import LeastSquares
from slimnet.recover.moments import Moments
from slimnet.recover.repair import get_state, replaced, set_values
from slimnet.recover.targets import Targets, run_until
from slimnet.recover.trace import Call, first_call, trace_calls
from slimnet.recover.watching import watching


def resolve(
    targets: Targets,
    slim: nn.Module,
    plan: Plan,
    moments: Mapping[str, Moments],
    settled: Plan | None = None,
) -> int:
    """Change ``slim`` in place: fit its consumers to the original's outputs, where that helps.

    Args:
        targets: what the layers of the network put out before anything was removed.
        slim: what is left after ``plan``.
        plan: what was removed, in the original numbering.
        moments: of the consumers that can be repaired.
        settled: what was gone when its layers were last fitted so, in the same numbering; those
            that run before what is gone since stay as they are. None: they never were.

    Returns:
        How many layers got new weights.
    """
    task, judging = targets.task, targets.judging
    few = partial(task.outputs, slim, task.few(targets.solving))
    calls = trace_calls(slim, few)
    order = _in_order(slim, moments, few)
    if settled is not None:
        order = _behind_changes(order, calls, plan, settled)
    if not order:
        return 0
    loss, changed = mean_loss(slim, judging, task), 0
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


def _behind_changes(
    order: Sequence[str], calls: Sequence[Call], plan: Plan, settled: Plan
) -> list[str]:
    """Return the layers that may read something else than when only ``settled`` was gone."""
    changed = {name for name, sides in plan.items() if sides != settled.get(name)}
    start = first_call(calls, changed)
    return [name for name in order if changed and first_call(calls, {name}) >= start]


def _solve(
    targets: Targets,
    slim: nn.Module,
    name: str,
    gone: Sequence[int],
    bias: str | None,
    frontier: Frontier,
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
            # it is subtracted, so that the aim is the output less the original's
            sign, offset = -1, -get_state(targets.original, bias)[kept, None]
        constant = sign * get_state(slim, bias).detach().double()
        matrix = torch.cat([matrix, constant.reshape(groups, -1, 1)], 2)
    fit = LeastSquares(matrix)
    for number, (batch, wanted) in enumerate(targets.of(name)):
        run = partial(targets.task.outputs, slim, batch)
        read, _ = run_until(slim, name, partial(frontier.run, ("solving", number), run))
        for target in wanted:
            columns = unfold(layer, read[target.images], target.positions)
            columns = columns if bias is None else add_constant(columns)
            rows = target.rows[kept] + offset
            fit.add(columns, rows.reshape(groups, matrix.shape[1], -1))
    solved = fit.solve()
    values = {f"{name}.weight": solved[:, :, : weight[0].numel()].reshape(weight.shape)}
    if bias is not None:
        values[bias] = sign * solved[:, :, -1].flatten()
    return {key: value.to(weight.dtype) for key, value in values.items()}
