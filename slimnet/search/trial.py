"""A trial: the network with channels gone from what its consumers read, without rebuilding it.

A channel that nothing reads is gone. A trial therefore changes only the consumers' weights, and
everything before the first of them need not run again. Where a network also reads channels
otherwise (a sum over all of them, say), ``can_replay`` finds that out and all of Θ_c is zeroed.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from slimnet.groups import Group, masked, plan_for
from slimnet.records import Plan
from slimnet.recover import Moments, get_state, laid_out_as, repaired_weights, replaced
from slimnet.search.replay import Call, Replay, first_call

SAME = 1e-4


@dataclass(frozen=True)
class Trial:
    """New values of parameters and buffers by name, and the call from which they matter."""

    values: Mapping[str, Tensor]
    start: int


def make_trial(
    model: nn.Module,
    plan: Plan,
    moments: Mapping[str, Moments],
    calls: Sequence[Call],
    *,
    consumers_only: bool,
) -> Trial:
    """Return the trial of removing what ``plan`` says; the model is as before on return.

    Args:
        model: the network as it stands.
        plan: what goes, in the numbering of ``model``.
        moments: of its consumers; empty for a trial without repair.
        calls: of its modules, in order.
        consumers_only: zero only what consumers read, and not what producers put out.
    """
    values = repaired_weights(model, plan, moments)
    reading = {name: {"in": sides["in"]} for name, sides in plan.items() if "in" in sides}
    zeroed = reading if consumers_only else plan
    modules = {name.rpartition(".")[0] for name in values} | set(zeroed)
    with masked(model, zeroed):
        for name in zeroed:
            for leaf, parameter in model.get_submodule(name).named_parameters(recurse=False):
                if (key := f"{name}.{leaf}") not in values:
                    values[key] = parameter.detach().clone()
    # now, and not each time that the trial runs
    values = {key: laid_out_as(value, get_state(model, key)) for key, value in values.items()}
    return Trial(values, first_call(calls, modules))


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
        trial = make_trial(model, plan, {}, calls, consumers_only=True)
        with masked(model, plan):
            expected = run()
        with Replay(model, calls) as replay:
            replay.record(run, {trial.start})
            with replaced(model, trial.values):
                got = replay.run(run, trial.start)
        if len(got) == len(expected) and all(map(_alike, got, expected)):
            found.add(group.name)
    return frozenset(found)


def _alike(got: Tensor, expected: Tensor) -> bool:
    scale = float(expected.abs().max())
    return torch.allclose(got, expected, rtol=SAME, atol=SAME * scale)
