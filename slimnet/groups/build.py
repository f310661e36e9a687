"""Build a group from the entries that go with a layer's channels, or say why there is none."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

import torch
from torch import Tensor, nn
from torch.nn.utils.parametrize import is_parametrized

from slimnet.execution import (
    CONVOLUTIONS,
    PRODUCERS,
    SUPPORTED,
    TRANSPOSED,
    is_depthwise,
    output_channels,
)
from slimnet.groups.graph import OPERATIONS, Entry, NotFollowedError
from slimnet.groups.group import Gate, Group, Member


class NotPrunableError(Exception):
    """Something that goes with a layer's channels cannot be removed; the message says why."""


def build_group(
    name: str,
    entries: Sequence[Entry],
    model: nn.Module,
    norm_after: Callable[[str], str | None],
) -> Group:
    """Return the group of the layer ``name`` from its entries; the model is not changed.

    ``norm_after`` gives the batch norm that alone reads a layer's output, or None.

    Raises:
        NotPrunableError: its channels cannot be removed; the message is the reason.
        NotFollowedError: these entries allow no removal, but others that are found differently may.
    """
    _refuse_unsupported(entries)
    _refuse_special(entries, model)
    modules = [e for e in entries if not issubclass(e.kind, OPERATIONS)]
    unit_of = _merge_grouped(1 + max(int(e.unit.max()) for e in modules), modules, model)
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
        )
        for e in modules
    )
    order = list(output_channels(model))
    producers = {e.module for e in modules if produces(e)}
    norm_of = {member.module: member.norm for member in members}
    gates = tuple(
        Gate(layer, norm_of[layer] or layer) for layer in sorted(producers, key=order.index)
    )
    return Group(name, members, gates, torch.arange(units))


def produces(entry: Entry) -> bool:
    """Return whether the entry is the output of a layer that makes channels."""
    return issubclass(entry.kind, PRODUCERS) and not entry.is_input


def _refuse_unsupported(entries: Iterable[Entry]) -> None:
    consumed = False
    for entry in entries:
        if entry.ends_network:
            raise NotPrunableError("it makes the network's output")
        if issubclass(entry.kind, OPERATIONS):
            continue
        if not entry.module or not issubclass(entry.kind, SUPPORTED):
            name = f"{entry.kind.__name__} {entry.module}".strip()
            raise NotPrunableError(f"{name} works across channels, or is not supported")
        consumed |= entry.is_input
    if not consumed:
        raise NotFollowedError("no layer that reads its channels was found")


def _refuse_special(entries: Iterable[Entry], model: nn.Module) -> None:
    """Refuse supported layers whose weights cannot be cut."""
    for entry in entries:
        module = model.get_submodule(entry.module) if entry.module else None
        if isinstance(module, PRODUCERS) and is_parametrized(module):
            raise NotPrunableError(f"the weights of {entry.module} are computed (parametrization)")
        if isinstance(module, TRANSPOSED) and module.groups > 1 and not is_depthwise(module):
            raise NotPrunableError(f"{entry.module} is a transposed convolution in groups")


def _merge_grouped(units: int, entries: Iterable[Entry], model: nn.Module) -> Tensor:
    """Return the new unit of each unit, (units,) int64.

    A grouped convolution must lose the same channels in each of its groups: these become one unit.
    """
    unit_of = torch.arange(units)
    for entry in entries:
        module = model.get_submodule(entry.module)
        if not isinstance(module, (*CONVOLUTIONS, *TRANSPOSED)) or is_depthwise(module):
            continue
        if module.groups == 1:
            continue
        channels = module.in_channels if entry.is_input else module.out_channels
        if len(entry.index) != channels:
            raise NotPrunableError(
                f"the grouped convolution {entry.module} shares its groups with other layers"
            )
        local = entry.index % (channels // module.groups)
        for position in range(channels // module.groups):
            together = torch.unique(unit_of[entry.unit[local == position]])
            unit_of[torch.isin(unit_of, together)] = together[0]
    numbers: Tensor = torch.unique(unit_of, return_inverse=True)[1]
    return numbers
