"""From what goes with a layer's channels to a group, or to the reason why there is none."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

import torch
from torch import Tensor, nn
from torch.nn.utils.parametrize import is_parametrized

from slimnet.groups.group import Gate, Group, Member
from slimnet.groups.sides import (
    CONVOLUTIONS,
    PRODUCERS,
    SUPPORTED,
    TRANSPOSED,
    is_depthwise,
    output_channels,
)
from slimnet.groups.trace import OPERATIONS, Entry, NotFollowedError


class NotPrunableError(Exception):
    """What goes with a layer's channels cannot go; the message says why."""


def build_group(
    name: str,
    entries: Sequence[Entry],
    model: nn.Module,
    norm_after: Callable[[str], str | None],
) -> Group:
    """Turn what goes with the layer ``name`` into a group; the model is not changed.

    ``norm_after`` gives the batch norm that alone reads a layer's output, or None.

    Raises:
        NotPrunableError: it may not be pruned; the message is the reason.
        NotFollowedError: it seems that it may not.
    """
    _refuse_unsupported(entries)
    _refuse_special(entries, model)
    modules = [e for e in entries if not issubclass(e.kind, OPERATIONS)]
    unit_of = _merge_grouped(1 + max(int(e.unit.max()) for e in modules), modules, model)
    units = int(unit_of.max()) + 1
    if units < 2:
        # marks may know better, where one channel spreads over all of them
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
    """Tell whether the entry is the output side of a layer that makes channels."""
    return issubclass(entry.kind, PRODUCERS) and not entry.is_input


def _refuse_unsupported(entries: Iterable[Entry]) -> None:
    consumed = False
    for entry in entries:
        if entry.ends_network:
            raise NotPrunableError("it makes the network's output")
        if issubclass(entry.kind, OPERATIONS):
            continue
        if not entry.module or not issubclass(entry.kind, SUPPORTED):
            what = f"{entry.kind.__name__} {entry.module}".strip()
            raise NotPrunableError(f"{what} works across its channels")
        consumed |= entry.is_input
    if not consumed:
        raise NotFollowedError("no layer that reads its channels was found")


def _refuse_special(entries: Iterable[Entry], model: nn.Module) -> None:
    """Refuse layers of the right kind whose weights cannot be cut as they are."""
    for entry in entries:
        module = model.get_submodule(entry.module) if entry.module else None
        if isinstance(module, PRODUCERS) and is_parametrized(module):
            raise NotPrunableError(f"the weights of {entry.module} are computed (parametrization)")
        if isinstance(module, TRANSPOSED) and module.groups > 1 and not is_depthwise(module):
            raise NotPrunableError(f"{entry.module} is a transposed convolution in groups")


def _merge_grouped(units: int, entries: Iterable[Entry], model: nn.Module) -> Tensor:
    """Return the new unit of each unit, (units,): a grouped convolution needs the same
    channels gone in every one of its groups, so these become one unit.
    """
    unit_of = torch.arange(units)
    for entry in entries:
        module = model.get_submodule(entry.module)
        if not isinstance(module, (*CONVOLUTIONS, *TRANSPOSED)) or is_depthwise(module):
            continue
        if module.groups == 1:
            continue
        side = module.in_channels if entry.is_input else module.out_channels
        if len(entry.index) != side:
            raise NotPrunableError(
                f"the grouped convolution {entry.module} shares its groups with other layers"
            )
        local = entry.index % (side // module.groups)
        for position in range(side // module.groups):
            together = torch.unique(unit_of[entry.unit[local == position]])
            unit_of[torch.isin(unit_of, together)] = together[0]
    numbers: Tensor = torch.unique(unit_of, return_inverse=True)[1]
    return numbers
