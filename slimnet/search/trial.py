"""A trial: the network with channels gone from what its consumers read, without rebuilding it.

A channel that nothing reads is gone. A trial therefore changes only the consumers' weights, and
everything before the first of them need not run again. Where a network also reads channels
otherwise (a sum over all of them, say), ``can_replay`` finds that out and all of Θ_c is zeroed.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn

from slimnet.groups import Group, masked, plan_for
from slimnet.records import Batches, Plan
from slimnet.recover import get_state, laid_out_as, repaired_weights, replaced
from slimnet.recover.replay import Replay
from slimnet.recover.trace import Call, first_call, trace_calls
from slimnet.search.folding import alike, folded_values
from slimnet.search.state import State


@dataclass(frozen=True)
class Trial:
    """New values of parameters and buffers by name, and the call from which they matter."""

    values: Mapping[str, Tensor]
    start: int


def make_trial(state: State, plan: Plan, calls: Sequence[Call], *, consumers_only: bool) -> Trial:
    """Return the trial of removing what ``plan`` says; the state is as before on return.

    Args:
        state: the network as it stands, and the moments of its consumers where trials are
            repaired. The trial is of ``state.running``.
        plan: what goes, in the numbering of the state.
        calls: of the network's modules, in order.
        consumers_only: zero only what consumers read, and not what producers put out.
    """
    model = state.model
    values = repaired_weights(model, plan, state.moments)
    reading = {name: {"in": sides["in"]} for name, sides in plan.items() if "in" in sides}
    zeroed = reading if consumers_only else plan
    # a layer can read some of the channels and put out others: its row goes, repaired or not
    with replaced(model, values), masked(model, zeroed):
        for name in zeroed:
            for leaf, parameter in model.get_submodule(name).named_parameters(recurse=False):
                values[f"{name}.{leaf}"] = parameter.detach().clone()
    values = folded_values(model, values, state.norms)
    # now, and not each time that the trial runs
    values = {
        key: laid_out_as(value, get_state(state.running, key)) for key, value in values.items()
    }
    return Trial(values, first_call(calls, {name.rpartition(".")[0] for name in values}))


def trace_state(state: State, batches: Batches) -> tuple[tuple[Call, ...], frozenset[str]]:
    """Return the calls of ``state.running``, and the groups whose trials can be replayed on it.

    The state is as before on return. See ``trace_calls`` and ``can_replay``.
    """
    run = partial(state.task.outputs, batch=state.task.few(batches))
    calls = trace_calls(state.running, partial(run, state.running))
    own = trace_calls(state.model, partial(run, state.model)) if state.norms else calls
    return calls, can_replay(state.model, state.groups, own, partial(run, state.model))


@torch.no_grad()
def can_replay(
    model: nn.Module,
    groups: Sequence[Group],
    calls: Sequence[Call],
    run: Callable[[], Sequence[Tensor]],
) -> frozenset[str]:
    """Return the groups for which a replayed trial gives what the masked network gives.

    ``run`` runs the model and returns its outputs.

    Half of each group's units are taken away both ways. The model is as before on return.
    """
    found = set()
    for group in groups:
        plan = plan_for([group], [torch.arange(group.units)[::2]])
        trial = make_trial(State(model, groups, {}, {}), plan, calls, consumers_only=True)
        with masked(model, plan):
            expected = run()
        with Replay(model, calls) as replay:
            replay.record(run, {trial.start})
            with replaced(model, trial.values):
                got = replay.run(run, trial.start)
        if len(got) == len(expected) and all(map(alike, got, expected)):
            found.add(group.name)
    return frozenset(found)
