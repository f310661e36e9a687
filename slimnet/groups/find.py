"""Find the groups of a network, and freeze, with the reason, what cannot be proven prunable."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor, nn

from slimnet.groups.group import Gate, Group, Member, plan_for
from slimnet.groups.proof import TOLERANCE, masked_slim_error, require_float64
from slimnet.groups.sides import (
    CONVOLUTIONS,
    PRODUCERS,
    SUPPORTED,
    TRANSPOSED,
    is_depthwise,
    output_channels,
)
from slimnet.groups.trace import OPERATIONS, Entry, NotTraceableError, Trace
from slimnet.records import Frozen


def find_groups(
    model: nn.Module, example: Tensor, *, layers: str = "auto", seed: int = 0
) -> tuple[list[Group], list[Frozen]]:
    """Find every group whose removal is proven right; the model is not changed.

    Args:
        model: a network in eval mode.
        example: inputs of shape (2 or more, ...).
        layers: "conv" for channels of convolutions only, "all" for linear layers too, "auto" for
            linear layers only where no convolution can lose channels.
        seed: for the channels that the proof removes.

    Returns:
        The groups, and every layer with channels that are not in one, with its reason.

    Raises:
        InputError: the network cannot be traced at all, or the proof cannot be run on it.
    """
    require_float64(model, example)
    trace = Trace(model, example)
    groups: list[Group] = []
    frozen: list[Frozen] = []
    visited: set[str] = set()
    all_channels = output_channels(model)
    for name, module in trace.roots():
        if name in visited:
            continue
        together = [name]
        try:
            entries = trace.entries(module, all_channels[name])
            together = sorted({name} | {e.module for e in entries if _produces(e)})
            groups.append(_build(name, all_channels[name], entries, trace))
        except NotTraceableError as reason:
            frozen += [Frozen(layer, all_channels[layer], str(reason)) for layer in together]
        visited.update(together)
    frozen += _never_traced(model, trace)
    groups, frozen = _only_proven(model, groups, frozen, example, seed)
    groups, spared = _restrict(model, groups, layers)
    return groups, frozen + spared


def _build(name: str, channels: int, entries: Sequence[Entry], trace: Trace) -> Group:
    """Turn what goes with a root into a group.

    Raises:
        NotTraceableError: it may not be pruned; the message is the reason.
    """
    _refuse_unsupported(entries, trace)
    modules = [e for e in entries if not issubclass(e.kind, OPERATIONS)]
    unit_of = _merge_grouped(channels, modules, trace.model)
    units = int(unit_of.max()) + 1
    if units < 2:
        raise NotTraceableError("its channels can only go all at once")
    members = tuple(
        Member(
            module=e.module,
            direction="in" if e.is_input else "out",
            index=e.index,
            original=e.index,
            unit=unit_of[e.unit],
            norm=trace.norm_after(e.module) if issubclass(e.kind, PRODUCERS) else None,
        )
        for e in modules
    )
    order = list(output_channels(trace.model))
    producers = {e.module for e in modules if _produces(e)}
    norm_of = {member.module: member.norm for member in members}
    gates = tuple(
        Gate(layer, norm_of[layer] or layer) for layer in sorted(producers, key=order.index)
    )
    return Group(name, members, gates, torch.arange(units))


def _produces(entry: Entry) -> bool:
    return issubclass(entry.kind, PRODUCERS) and not entry.is_input


def _restrict(
    model: nn.Module, groups: list[Group], layers: str
) -> tuple[list[Group], list[Frozen]]:
    linear = [
        group
        for group in groups
        if all(isinstance(model.get_submodule(gate.layer), nn.Linear) for gate in group.gates)
    ]
    if layers == "all" or (layers == "auto" and len(linear) == len(groups)):
        return groups, []
    reason = "only convolutions may lose channels here (--layers all lifts that)"
    return [g for g in groups if all(g is not other for other in linear)], _freeze(linear, reason)


def _freeze(groups: Iterable[Group], reason: str) -> list[Frozen]:
    return [
        Frozen(gate.layer, len(group.producer(gate.layer).index), reason)
        for group in groups
        for gate in group.gates
    ]


def _refuse_unsupported(entries: Iterable[Entry], trace: Trace) -> None:
    consumed = False
    for entry in entries:
        if entry.ends_network:
            raise NotTraceableError("it makes the network's output")
        if issubclass(entry.kind, OPERATIONS):
            continue
        if not entry.module or not issubclass(entry.kind, SUPPORTED):
            what = f"{entry.kind.__name__} {entry.module}".strip()
            raise NotTraceableError(f"{what} works across its channels")
        consumed |= entry.is_input
    if not consumed:
        raise NotTraceableError("no layer that reads its channels was found")


def _merge_grouped(channels: int, entries: Iterable[Entry], model: nn.Module) -> Tensor:
    """Return the unit of each root channel, (channels,): a grouped convolution needs the same
    channels gone in every one of its groups, so these become one unit.
    """
    unit_of = torch.arange(channels)
    for entry in entries:
        module = model.get_submodule(entry.module)
        if not isinstance(module, (*CONVOLUTIONS, *TRANSPOSED)) or is_depthwise(module):
            continue
        if module.groups == 1:
            continue
        side = module.in_channels if entry.is_input else module.out_channels
        if len(entry.index) != side:
            raise NotTraceableError(
                f"the grouped convolution {entry.module} shares its groups with other layers"
            )
        local = entry.index % (side // module.groups)
        for position in range(side // module.groups):
            together = torch.unique(unit_of[entry.unit[local == position]])
            unit_of[torch.isin(unit_of, together)] = together[0]
    units: Tensor = torch.unique(unit_of, return_inverse=True)[1]
    return units


def _never_traced(model: nn.Module, trace: Trace) -> list[Frozen]:
    traced = {name for name, _ in trace.roots()}
    return [
        Frozen(name, channels, "the traced pass did not run it as a layer")
        for name, channels in output_channels(model).items()
        if name not in traced
    ]


def _only_proven(
    model: nn.Module,
    groups: list[Group],
    frozen: list[Frozen],
    example: Tensor,
    seed: int,
) -> tuple[list[Group], list[Frozen]]:
    """Keep the groups for which masked = slim in float64: all at once, else one by one."""
    generator = torch.Generator().manual_seed(seed)
    some = [torch.randperm(g.units, generator=generator)[: max(1, g.units // 3)] for g in groups]
    if masked_slim_error(model, plan_for(groups, some), example) <= TOLERANCE:
        return groups, frozen
    proven: list[Group] = []
    for group, units in zip(groups, some, strict=True):
        if masked_slim_error(model, plan_for([group], [units]), example) <= TOLERANCE:
            proven.append(group)
            continue
        reason = "removing its channels is not the same as masking them (proof in float64)"
        frozen += _freeze([group], reason)
    return proven, frozen
