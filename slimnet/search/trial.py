"""A trial: the network with channels gone, without rebuilding it, repaired as it would be shipped.

Zeroing the input weights of all consumers of a channel has the effect of removing it. A trial
therefore changes only these weights, and the layers before the first consumer need not run again.
Some networks read channels in other ways too, such as a sum over all of them: there the layers that
make a channel change as well.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial

import torch
from torch import Tensor, nn

from slimnet.execution import Change, RunningNetwork, alike, replaced
from slimnet.groups import Group, masked, plan_for
from slimnet.records import Plan
from slimnet.repair import InverseGram, repaired_weights


def make_trial(
    running: RunningNetwork,
    inverse_grams: Mapping[str, InverseGram],
    plan: Plan,
    *,
    consumers_only: bool,
) -> Change:
    """Return what removing the channels of ``plan`` changes; the network is as before on return.

    Args:
        running: the network as it stands.
        inverse_grams: of the consumers, where trials are repaired.
        plan: what goes, in the numbering of the network.
        consumers_only: set to zero only what consumers read, not what producers put out.
    """
    model = running.model
    values = repaired_weights(model, plan, inverse_grams)
    reading = {name: {"in": axes["in"]} for name, axes in plan.items() if "in" in axes}
    zeroed = reading if consumers_only else plan
    # a layer can read some of the channels and put out others: its rows go, repaired or not
    with replaced(model, values), masked(model, zeroed):
        for name in zeroed:
            for leaf, parameter in model.get_submodule(name).named_parameters(recurse=False):
                values[f"{name}.{leaf}"] = parameter.detach().clone()
    return running.change(values)


@torch.no_grad()
def groups_read_only_by_consumers(
    running: RunningNetwork,
    groups: Sequence[Group],
    run: Callable[[nn.Module], Sequence[Tensor]],
) -> frozenset[str]:
    """Return the names of the groups whose channels only their consumers read.

    Half of each group's units are removed in two ways: masked, and by a trial that changes only
    the consumers. Both must give the same outputs. The network is as before on return.

    Args:
        running: the network.
        groups: its groups.
        run: runs a network on a few images and returns its outputs.
    """
    found = set()
    run_network = partial(run, running.folded_model)
    for group in groups:
        plan = plan_for([group], [torch.arange(group.units)[::2]])
        trial = make_trial(running, {}, plan, consumers_only=True)
        with masked(running.model, plan):
            expected = run(running.model)
        recorded: dict[int, Tensor] = {}
        with running.replay() as replay:
            replay.resume(run_network, 0, recorded, {trial.start})
            with replaced(running.folded_model, trial.values):
                got = replay.run(run_network, trial.start, recorded)
        if alike(got, expected):
            found.add(group.name)
    return frozenset(found)
