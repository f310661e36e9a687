"""Build a group from all that goes with a layer's channels, or say why they cannot be removed."""

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace

import torch
from torch import Tensor, nn
from torch.nn.utils.parametrize import is_parametrized

from slimnet.execution import (
    CONVOLUTIONS,
    PRODUCERS,
    SUPPORTED,
    TRANSPOSED,
    channel_count,
    is_depthwise,
    output_channels,
)
from slimnet.groups.graph import LOST, OPERATIONS, Entry, NotFollowedError, NotPrunableError
from slimnet.groups.group import Gate, Group, Member, connected

PARAMETER = (
    "the network's code applies a parameter to its channels, such as a gain, by itself; only "
    "parameters of layers can be cut"
)


def build_group(
    name: str,
    entries: Sequence[Entry],
    model: nn.Module,
    norm_after: Callable[[str], str | None],
) -> Group:
    """Return the group of the layer ``name`` from its entries; the model is not changed.

    ``norm_after`` gives the batch or group norm that alone reads a layer's output, or None.

    Raises:
        NotPrunableError: its channels cannot be removed; the message is the reason.
        NotFollowedError: these entries allow no removal, but others that are found differently may.
    """
    _refuse_unsupported(entries, model)
    _refuse_special(entries, model)
    _refuse_unknown(entries, model)
    modules = [e for e in entries if not issubclass(e.kind, OPERATIONS)]
    unit_of = _merge(1 + max(int(e.unit.max()) for e in modules), modules, model)
    units = int(unit_of.max()) + 1
    if units < 2:
        # NaN tracing may find more units, where one channel is broadcast over all of them
        raise NotFollowedError("its channels can only go all at once")
    members = tuple(
        Member(
            module=e.module,
            direction="in" if e.is_input else "out",
            index=e.index,
            original=e.index,
            unit=unit_of[e.unit],
            norm=norm_after(e.module) if issubclass(e.kind, PRODUCERS) else None,
            channels=_channels(model.get_submodule(e.module), e),
        )
        for e in _each_channel_once(modules)
    )
    order = list(output_channels(model))
    producers = {e.module for e in modules if produces(e)}
    norm_of = {member.module: member.norm for member in members}
    gates = tuple(
        Gate(layer, norm_of[layer] or layer) for layer in sorted(producers, key=order.index)
    )
    return Group(name, members, gates, torch.arange(units))


def _channels(module: nn.Module, entry: Entry) -> int:
    return channel_count(module, "in" if entry.is_input else "out") or 0


def produces(entry: Entry) -> bool:
    """Return whether the entry is the output of a layer that makes channels."""
    return issubclass(entry.kind, PRODUCERS) and not entry.is_input


def _refuse_unsupported(entries: Iterable[Entry], model: nn.Module) -> None:
    consumed = False
    for entry in entries:
        if entry.ends_network:
            raise NotPrunableError("it makes the network's output")
        if issubclass(entry.kind, OPERATIONS):
            continue
        if issubclass(entry.kind, nn.Parameter):
            raise NotPrunableError(PARAMETER)
        if not entry.module or not issubclass(entry.kind, SUPPORTED):
            raise NotPrunableError(f"slimnet takes no channels out of {_in_words(entry, model)}")
        consumed |= entry.is_input
    if not consumed:
        raise NotFollowedError("no layer that reads its channels was found")


def _in_words(entry: Entry, model: nn.Module) -> str:
    """Return what stands there, and no more about it than is true of every such module."""
    name = f"the {entry.kind.__name__} {entry.module}".strip()
    if issubclass(entry.kind, nn.Parameter):
        return f"{name}, which the network's code uses without a layer"
    module = model.get_submodule(entry.module)
    if isinstance(module, nn.LayerNorm):
        return f"{name}, which averages over axes of the shape {tuple(module.normalized_shape)}"
    return name


def _refuse_special(entries: Iterable[Entry], model: nn.Module) -> None:
    """Refuse supported layers whose weights cannot be cut."""
    for entry in entries:
        module = model.get_submodule(entry.module) if entry.module else None
        if isinstance(module, PRODUCERS) and is_parametrized(module):
            raise NotPrunableError(f"the weights of {entry.module} are computed (parametrization)")
        if isinstance(module, TRANSPOSED) and module.groups > 1 and not is_depthwise(module):
            raise NotPrunableError(f"{entry.module} is a transposed convolution in groups")


def _refuse_unknown(entries: Iterable[Entry], model: nn.Module) -> None:
    """Refuse channels that a module does not have: the graph has lost its way."""
    for entry in entries:
        if entry.module and len(entry.index):
            channels = _channels(model.get_submodule(entry.module), entry)
            if channels and int(entry.index.max()) >= channels:
                raise NotFollowedError(LOST)


def _merge(units: int, entries: Sequence[Entry], model: nn.Module) -> Tensor:
    """Return the new unit of each unit, (units,) int64.

    Units that share a channel are one. A grouped convolution must lose the same channels in each
    of its groups, and a group norm all channels that it normalises together or none: these are one.
    """
    pairs = [*_sharing_a_channel(entries)]
    for entry in entries:
        module = model.get_submodule(entry.module)
        if isinstance(module, nn.GroupNorm):
            pairs.append(_normed_together(entry, module))
        elif isinstance(module, (*CONVOLUTIONS, *TRANSPOSED)) and not is_depthwise(module):
            channels = module.in_channels if entry.is_input else module.out_channels
            if module.groups > 1 and len(entry.index) != channels:
                raise NotPrunableError(
                    f"the grouped convolution {entry.module} shares its groups with other layers"
                )
            if module.groups > 1:
                pairs.append(_in_one(entry.unit, entry.index % (channels // module.groups)))
    first, second = zip(*pairs, strict=True)
    return connected(units, torch.cat(first), torch.cat(second))


def _sharing_a_channel(entries: Iterable[Entry]) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield pairs of units that have a channel in common, each (pairs,) int64."""
    for same in _by_side(entries):
        yield _in_one(torch.cat([e.unit for e in same]), torch.cat([e.index for e in same]))


def _each_channel_once(entries: Iterable[Entry]) -> Iterator[Entry]:
    """Yield one entry for each side of a module; its channels are ascending, if any came twice."""
    for same in _by_side(entries):
        index, unit = torch.cat([e.index for e in same]), torch.cat([e.unit for e in same])
        if len(torch.unique(index)) < len(index):
            index, order = index.sort(stable=True)
            first = torch.cat([torch.ones(1, dtype=torch.bool), index[1:] != index[:-1]])
            index, unit = index[first], unit[order][first]
        yield replace(same[0], index=index, unit=unit)


def _by_side(entries: Iterable[Entry]) -> Iterable[list[Entry]]:
    """Return the entries of the inputs, or of the outputs, of each module."""
    by_side: dict[tuple[str, bool], list[Entry]] = defaultdict(list)
    for entry in entries:
        by_side[entry.module, entry.is_input].append(entry)
    return by_side.values()


def _in_one(units: Tensor, key: Tensor) -> tuple[Tensor, Tensor]:
    """Return pairs (pairs,) int64 that connect all units of the same key; both are (units,)."""
    key, order = key.sort()
    same = key[1:] == key[:-1]
    return units[order][1:][same], units[order][:-1][same]


def _normed_together(entry: Entry, norm: nn.GroupNorm) -> tuple[Tensor, Tensor]:
    """Return pairs of units whose channels are normalised together, each (pairs,) int64."""
    size = norm.num_channels // norm.num_groups
    if norm.num_groups == 1:
        raise NotPrunableError(
            f"{entry.module} is a GroupNorm of one group: it normalises all channels together"
        )
    group = torch.unique(entry.index) // size
    if bool((torch.bincount(group)[group] != size).any()):
        raise NotPrunableError(
            f"the GroupNorm {entry.module} normalises its channels together with those of others"
        )
    return _in_one(entry.unit, entry.index // size)
