"""Find the groups of a network, and freeze, with the reason, what cannot be proven prunable."""

import difflib
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import Any

import torch
from torch import nn

from slimnet.errors import InputError
from slimnet.execution import SUPPORTED, linear_share, output_channels, watching
from slimnet.groups.build import build_group, produces
from slimnet.groups.couplings import Couplings
from slimnet.groups.graph import LOST, NotFollowedError, NotPrunableError, Trace
from slimnet.groups.group import Group
from slimnet.groups.heads import head_entries
from slimnet.groups.nan_tracing import NanTracer
from slimnet.groups.probe import Probe
from slimnet.groups.provable import provable_groups
from slimnet.load import attributes_kept, on_shapes
from slimnet.records import Frozen
from slimnet.tasks import forward

NOT_RUN = "it does not run as a layer in eval mode (an unused branch, or called by its weights)"
NOT_SEEN = "the dependency graph does not contain it"
CONVOLUTIONS_ONLY = "only convolutions may lose channels here (--layers all lifts that)"
# Of the MACs: linear layers have 0 to 15 % in plain convolutional networks (LeNet-5 the most), and
# 63 to 99 % in MaxViT, ConvNeXt, ViT and Swin. All shares between decide the same for these.
MOST = 0.5
SINGLE_CHANNEL = "it has one channel, and a layer must keep at least one"
Reasons = dict[str, str]


@dataclass
class _Found:
    """Groups, the reason for every layer that is in none, and the layers to follow otherwise."""

    groups: list[Group] = field(default_factory=list)
    reasons: Reasons = field(default_factory=dict)
    unfollowed: list[str] = field(default_factory=list)


def find_groups(
    model: nn.Module, example: Any, *, layers: str = "auto", seed: int = 0, full_size: Any = None
) -> tuple[list[Group], list[Frozen]]:
    """Find every group whose removal is proven right; the model is not changed.

    The dependency graph comes first. Layers that it does not contain, cannot follow, or follows
    wrongly get a second chance: as whole attention heads, by derivatives or by NaN tracing.

    Args:
        model: a network in eval mode.
        example: inputs of the model: a tensor of shape (2 or more, ...), a tuple of tensors, or
            a mapping from names to tensors.
        layers: "conv" for channels of convolutions only, "all" for linear layers too, "auto" for
            linear layers only where they do most of the work, or no convolution can lose channels.
        seed: for the channels that the proof removes.
        full_size: inputs to count work on, where the example is smaller than what is usual.

    Returns:
        The groups, and every layer with channels that is in none of them, with its reason.

    Raises:
        InputError: the proof cannot be run on this network, or it gives another output each time.
    """
    probe = Probe(model, example, seed)
    with attributes_kept(model):
        found = _from_graph(model, example)
    groups, failing = provable_groups(found.groups, probe, seed)
    objections = _by_layer(failing)
    reasons = found.reasons | objections
    second_chance = [n for n in output_channels(model) if n in {*found.unfollowed, *objections}]
    if second_chance:
        with attributes_kept(model):
            traced, lost = _by_tracing(model, example, second_chance, groups, seed)
        more, failing = provable_groups(traced, probe, seed, proven=groups)
        groups = groups + more
        for layer, reason in (lost | _by_layer(failing)).items():
            # where the graph's group failed its proof, that stays the reason
            if layer not in objections:
                reasons[layer] = reason
    if not groups:
        probe.require_repeats()  # a network that differs each time fails every proof
    groups, spared = _restrict(model, groups, layers, example if full_size is None else full_size)
    in_groups = _layers_of(groups)
    frozen = [
        Frozen(layer, channels, SINGLE_CHANNEL if channels == 1 else (reasons | spared)[layer])
        for layer, channels in output_channels(model).items()
        if layer not in in_groups
    ]
    return groups, [*frozen, *_weights_outside_layers(model)]


def _by_layer(failing: Iterable[tuple[Group, str]]) -> Reasons:
    return {gate.layer: reason for group, reason in failing for gate in group.gates}


def _from_graph(model: nn.Module, example: Any) -> _Found:
    """Return the groups of the dependency graph; layers that it lacks are among the unfollowed."""
    channels = output_channels(model)
    try:
        trace = Trace(model, example)
    except NotFollowedError as reason:
        return _Found([], dict.fromkeys(channels, str(reason)), list(channels))
    found = _Found(reasons=dict.fromkeys(channels, NOT_RUN))
    visited: set[str] = set()
    for name, module in trace.roots():
        if name in visited:
            continue
        together = {name}
        try:
            entries = trace.entries(module, channels[name])
            together |= {e.module for e in entries if produces(e)}
            visited |= together
            found.groups.append(build_group(name, entries, trace.model, trace.norm_after))
        except (NotPrunableError, NotFollowedError) as reason:
            found.reasons |= dict.fromkeys(together, str(reason))
            if isinstance(reason, NotFollowedError):
                found.unfollowed += together
    seen = visited.union(found.unfollowed)
    if any(name not in seen for name in channels):
        unseen = [
            name for name in on_shapes(_called, model, example, harmless=True) if name not in seen
        ]
        found.reasons |= dict.fromkeys(unseen, NOT_SEEN)
        found.unfollowed += unseen
    return found


def _called(model: nn.Module, inputs: Any) -> list[str]:
    """Return the convolutions and linear layers that a pass of the model calls."""
    called: dict[str, None] = {}
    with (
        torch.no_grad(),
        watching(model, output_channels(model), lambda name, *_: called.setdefault(name)),
    ):
        forward(model, inputs)
    return list(called)


def _by_tracing(
    model: nn.Module, example: Any, layers: Sequence[str], proven: Iterable[Group], seed: int
) -> tuple[list[Group], Reasons]:
    """Return the groups of these layers, and why the others are in none.

    Whole attention heads come first, then couplings by derivatives, then NaN tracing. A group that
    holds a layer of a ``proven`` one is not right.
    """
    couplings = Couplings(model, example, seed)
    groups: list[Group] = []
    for entries in head_entries(model, example, layers):
        with suppress(NotFollowedError, NotPrunableError):
            groups.append(build_group(entries[0].module, entries, model, couplings.norm_after))
    taken, reasons = _layers_of([*proven, *groups]), Reasons()
    for way in (couplings, NanTracer(model, example)):
        for layer in layers:
            if layer in taken:
                continue
            try:
                group = build_group(layer, way.entries(layer), model, way.norm_after)
                if _layers_of([group]) & taken:
                    raise NotFollowedError(LOST)
            except (NotFollowedError, NotPrunableError) as reason:
                reasons.setdefault(layer, str(reason))
            else:
                groups.append(group)
                taken |= _layers_of([group])
    return groups, {layer: text for layer, text in reasons.items() if layer not in taken}


def _layers_of(groups: Iterable[Group]) -> set[str]:
    return {gate.layer for group in groups for gate in group.gates}


def _restrict(
    model: nn.Module, groups: list[Group], layers: str, example: Any
) -> tuple[list[Group], Reasons]:
    """Return the groups that the option ``layers`` allows, and why the other layers are frozen."""
    linear = [
        group
        for group in groups
        if all(isinstance(model.get_submodule(gate.layer), nn.Linear) for gate in group.gates)
    ]
    if layers == "all" or not linear:
        return groups, {}
    if layers == "auto" and (len(linear) == len(groups) or linear_share(model, example) >= MOST):
        return groups, {}
    spared = {gate.layer: CONVOLUTIONS_ONLY for group in linear for gate in group.gates}
    return [g for g in groups if all(g is not other for other in linear)], spared


def _weights_outside_layers(model: nn.Module) -> Iterator[Frozen]:
    """Yield every weight that belongs to no supported layer: the network's code works with it."""
    for name, module in model.named_modules():
        if isinstance(module, SUPPORTED):
            continue
        for leaf, parameter in module.named_parameters(recurse=False):
            if sum(size > 1 for size in parameter.shape) > 1:
                reason = (
                    f"the code of {type(module).__name__} uses it directly, not through a layer "
                    "whose channels can be followed"
                )
                yield Frozen(f"{name}.{leaf}".lstrip("."), len(parameter), reason)


def keep_layers(
    groups: Sequence[Group], frozen: Sequence[Frozen], patterns: Sequence[str]
) -> tuple[list[Group], list[Frozen]]:
    """Return the groups that may still lose channels, and all frozen layers; changes neither.

    Args:
        groups: as ``find_groups`` found them.
        frozen: the layers that lose nothing anyway; a pattern may match these too.
        patterns: globs over module names, such as "layer1.*". A module that matches is kept with
            everything inside it, and with every layer that is coupled to it.

    Raises:
        InputError: a pattern matches no layer.
    """
    layers = sorted({g.layer for group in groups for g in group.gates} | {f.layer for f in frozen})
    for pattern in patterns:
        if not any(matches(layer, pattern) for layer in layers):
            raise InputError(f"keep {pattern!r} matches no layer{_nearest(pattern, layers)}")
    open_groups: list[Group] = []
    kept: dict[str, str] = {}
    for group in groups:
        reasons = _reasons([gate.layer for gate in group.gates], patterns)
        if not reasons:
            open_groups.append(group)
        kept |= reasons
    # a depthwise convolution behind a concatenation is in several groups
    still_open = _layers_of(open_groups)
    newly_frozen = [
        Frozen(layer, _channels(layer, groups), reason)
        for layer, reason in kept.items()
        if layer not in still_open
    ]
    return open_groups, [*frozen, *newly_frozen]


def _reasons(layers: Sequence[str], patterns: Sequence[str]) -> dict[str, str]:
    """Return why each of these coupled layers is kept; nothing if no pattern matches any."""
    asked = {
        layer: f"kept as asked (--keep {pattern})"
        for layer in layers
        for pattern in reversed(patterns)
        if matches(layer, pattern)
    }
    if not asked:
        return {}
    first, reason = next(iter(asked.items()))
    return dict.fromkeys(layers, f"coupled to {first}, {reason}") | asked


def matches(layer: str, pattern: str) -> bool:
    """Return whether the pattern matches the layer or a module that contains it."""
    parts = layer.split(".")
    return any(fnmatchcase(".".join(parts[:end]), pattern) for end in range(1, len(parts) + 1))


def _channels(layer: str, groups: Iterable[Group]) -> int:
    """Return how many output channels of the layer the groups hold."""
    return sum(
        len(group.producer(layer).index)
        for group in groups
        if any(gate.layer == layer for gate in group.gates)
    )


def _nearest(pattern: str, layers: Sequence[str]) -> str:
    cutoff = 0.6 if set(pattern) & set("*?[") else 0
    close = difflib.get_close_matches(pattern, layers, n=1, cutoff=cutoff)
    return f"; the nearest is {close[0]!r}" if close else ""
