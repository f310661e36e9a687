"""Find the groups of a network, and freeze, with the reason, what cannot be proven prunable."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import suppress
from functools import partial
from typing import Any

import torch
from torch import nn

from slimnet.groups.build import NotPrunableError, build_group, produces
from slimnet.groups.flow import Flow
from slimnet.groups.group import Group
from slimnet.groups.heads import head_entries
from slimnet.groups.probe import Probe
from slimnet.groups.proven import only_proven
from slimnet.groups.sides import SUPPORTED, output_channels
from slimnet.groups.trace import NotFollowedError, Trace
from slimnet.load import on_shapes
from slimnet.measure import forward
from slimnet.records import Frozen

NOT_RUN = "it does not run as a layer in eval mode (an unused branch, or called by its weights)"
NOT_SEEN = "the dependency graph does not see it"
ALONE = "it has one channel, and a layer cannot go all at once"
Reasons = dict[str, str]


def find_groups(
    model: nn.Module, example: Any, *, layers: str = "auto", seed: int = 0
) -> tuple[list[Group], list[Frozen]]:
    """Find every group whose removal is proven right; the model is not changed.

    The dependency graph is asked first. Layers that it does not see, cannot follow, or follows
    wrongly, get a second chance by marks on their channels (``flow``).

    Args:
        model: a network in eval mode.
        example: what the model takes: a tensor of shape (2 or more, ...), a tuple of tensors, or
            a mapping from names to tensors.
        layers: "conv" for channels of convolutions only, "all" for linear layers too, "auto" for
            linear layers only where no convolution can lose channels.
        seed: for the channels that the proof removes.

    Returns:
        The groups, and every layer with channels that are not in one, with its reason.

    Raises:
        InputError: the proof cannot be run on this network, or it gives another output each time.
    """
    probe = Probe(model, example, seed)
    groups, reasons, unfollowed = _from_graph(model, example)
    groups, objections = _proven(groups, probe, seed)
    reasons |= objections
    if second_chance := [*unfollowed, *objections]:
        flowing, lost = _from_flow(model, example, second_chance)
        groups, objected = _proven(groups + flowing, probe, seed)
        for layer, text in (lost | objected).items():
            if layer in unfollowed or layer not in objections:
                reasons[layer] = text
    if not groups:
        probe.require_repeats()  # else that is the reason
    groups, spared = _restrict(model, groups, layers)
    found = {gate.layer for group in groups for gate in group.gates}
    frozen = [
        Frozen(layer, channels, ALONE if channels == 1 else (reasons | spared)[layer])
        for layer, channels in output_channels(model).items()
        if layer not in found
    ]
    return groups, [*frozen, *_not_layers(model)]


def _from_graph(model: nn.Module, example: Any) -> tuple[list[Group], Reasons, list[str]]:
    """Return the groups of the dependency graph, why every other layer is not in one, and in
    which layers the graph could not be followed; to those belong layers that it does not see.
    """
    channels = output_channels(model)
    reasons = dict.fromkeys(channels, NOT_RUN)
    groups: list[Group] = []
    visited: set[str] = set()
    unfollowed: list[str] = []
    try:
        trace = Trace(model, example)
    except NotFollowedError as reason:
        return [], dict.fromkeys(channels, str(reason)), list(channels)
    for name, module in trace.roots():
        if name in visited:
            continue
        try:
            entries = trace.entries(module, channels[name])
        except NotFollowedError as reason:
            reasons[name] = str(reason)
            unfollowed.append(name)
            continue
        together = {name} | {e.module for e in entries if produces(e)}
        visited |= together
        try:
            groups.append(build_group(name, entries, trace.model, trace.norm_after))
        except NotPrunableError as reason:
            reasons |= dict.fromkeys(together, str(reason))
        except NotFollowedError as reason:
            reasons |= dict.fromkeys(together, str(reason))
            unfollowed += together
    seen = visited.union(unfollowed)
    if any(name not in seen for name in channels):
        unseen = [name for name in _that_run(model, example) if name not in seen]
        reasons |= dict.fromkeys(unseen, NOT_SEEN)
        unfollowed += unseen
    return groups, reasons, unfollowed


def _that_run(model: nn.Module, example: Any) -> list[str]:
    """Return the convolutions and linear layers that are called in a pass of the model."""
    return on_shapes(_calls, model, example)


def _calls(model: nn.Module, inputs: Any) -> list[str]:
    """Change the model: its layers get hooks."""
    called: list[str] = []
    for name in output_channels(model):
        hook = partial(lambda name, *_: called.append(name), name)
        model.get_submodule(name).register_forward_hook(hook)
    with torch.no_grad():
        forward(model, inputs)
    return list(dict.fromkeys(called))


def _from_flow(
    model: nn.Module, example: Any, layers: Sequence[str]
) -> tuple[list[Group], Reasons]:
    """Return the groups of these layers, whole attention heads first, then by marks, and why the
    others are in none.
    """
    flow = Flow(model, example)
    groups, reasons = [], {}
    for entries in head_entries(model, example, layers):
        with suppress(NotFollowedError, NotPrunableError):
            groups.append(build_group(entries[0].module, entries, model, flow.norm_after))
    in_heads = {gate.layer for group in groups for gate in group.gates}
    for layer in layers:
        if layer in in_heads:
            continue
        try:
            groups.append(build_group(layer, flow.entries(layer), model, flow.norm_after))
        except (NotFollowedError, NotPrunableError) as reason:
            reasons[layer] = str(reason)
    return groups, reasons


def _proven(groups: Sequence[Group], probe: Probe, seed: int) -> tuple[list[Group], Reasons]:
    """Return the groups that are right, and for every layer in the others the reason."""
    proven, guilty = only_proven(groups, probe, seed)
    return proven, {gate.layer: reason for group, reason in guilty for gate in group.gates}


def _restrict(model: nn.Module, groups: list[Group], layers: str) -> tuple[list[Group], Reasons]:
    linear = [
        group
        for group in groups
        if all(isinstance(model.get_submodule(gate.layer), nn.Linear) for gate in group.gates)
    ]
    if layers == "all" or (layers == "auto" and len(linear) == len(groups)):
        return groups, {}
    reason = "only convolutions may lose channels here (--layers all lifts that)"
    spared = {gate.layer: reason for group in linear for gate in group.gates}
    return [g for g in groups if all(g is not other for other in linear)], spared


def _not_layers(model: nn.Module) -> Iterator[Frozen]:
    """Yield every weight that stands in no layer known here: the network's code works with it."""
    for name, module in model.named_modules():
        if isinstance(module, SUPPORTED):
            continue
        for leaf, parameter in module.named_parameters(recurse=False):
            if sum(size > 1 for size in parameter.shape) > 1:
                kind = type(module).__name__
                yield Frozen(
                    f"{name}.{leaf}".lstrip("."), len(parameter),
                    f"the code of {kind} works with it, not a layer whose channels can be followed",
                )  # fmt: skip
