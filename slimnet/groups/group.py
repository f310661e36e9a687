"""Groups: units that can only be removed whole, with all weights that go with each unit.

A group's units are numbered 0 to ``units - 1`` in the current network; ``original_units`` holds
their numbers in the original network. Nothing here depends on torch-pruning.
"""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from slimnet.execution import Direction
from slimnet.records import Plan


@dataclass(frozen=True)
class Member:
    """The inputs or the outputs of one module: channel ``index[i]`` goes with unit ``unit[i]``.

    ``index``, ``original`` and ``unit`` are int64 of shape (entries,). ``original`` is ``index``
    in the numbering of the original network. Norms and depthwise convolutions have the direction
    "out". ``norm`` is the batch norm that alone reads the module's output, if any.
    """

    module: str
    direction: Direction
    index: Tensor
    original: Tensor
    unit: Tensor
    norm: str | None = None


@dataclass(frozen=True)
class Gate:
    """The place of a channel's 0/1 gate: the output of ``module``, the layer or its norm."""

    layer: str
    module: str


@dataclass(frozen=True)
class Group:
    """Units that can only be removed whole; one gate for each layer that produces the channels."""

    name: str
    members: tuple[Member, ...]
    gates: tuple[Gate, ...]
    original_units: Tensor

    @property
    def units(self) -> int:
        """The number of units left."""
        return len(self.original_units)

    @property
    def consumers(self) -> tuple[str, ...]:
        """The names of the layers that read the channels, each once."""
        return tuple(dict.fromkeys(m.module for m in self.members if m.direction == "in"))

    def producer(self, layer: str) -> Member:
        """Return the member for the outputs of ``layer``."""
        return next(m for m in self.members if m.module == layer and m.direction == "out")


def plan_for(groups: Sequence[Group], units: Sequence[Tensor], *, original: bool = False) -> Plan:
    """Return the plan that removes ``units[i]`` of ``groups[i]``, in the current numbering.

    With ``original=True`` it is in the original network's numbering.
    """
    collected: dict[str, dict[str, set[int]]] = defaultdict(lambda: defaultdict(set))
    for group, chosen in zip(groups, units, strict=True):
        if len(chosen) == 0:
            continue
        for member in group.members:
            numbers = member.original if original else member.index
            hit = numbers[torch.isin(member.unit, chosen)]
            if len(hit):
                collected[member.module][member.direction].update(hit.tolist())
    return {
        module: {axis: tuple(sorted(indices)) for axis, indices in axes.items()}
        for module, axes in collected.items()
    }


def norms_behind(groups: Sequence[Group]) -> dict[str, str]:
    """Return, by layer, the batch norm that alone reads its output."""
    members = (member for group in groups for member in group.members)
    return {member.module: member.norm for member in members if member.norm is not None}


def merge_plans(first: Plan, second: Plan) -> Plan:
    """Return the union of two plans that use the same numbering."""
    merged: dict[str, dict[str, tuple[int, ...]]] = {m: dict(axes) for m, axes in first.items()}
    for module, axes in second.items():
        for axis, indices in axes.items():
            before = merged.setdefault(module, {}).get(axis, ())
            merged[module][axis] = tuple(sorted({*before, *indices}))
    return merged


def shrink_groups(groups: Sequence[Group], units: Sequence[Tensor]) -> list[Group]:
    """Return the groups, renumbered, after ``units[i]`` of ``groups[i]`` were removed."""
    plan = plan_for(groups, units)
    # groups of untouched modules stay the same
    return [
        _shrink(group, gone, plan) if any(m.module in plan for m in group.members) else group
        for group, gone in zip(groups, units, strict=True)
    ]


def _shrink(group: Group, gone: Tensor, plan: Plan) -> Group:
    kept = ~torch.isin(torch.arange(group.units), gone)
    new_unit = torch.cumsum(kept, 0) - 1
    members = []
    for member in group.members:
        stays = kept[member.unit]
        index = member.index[stays]
        removed = torch.tensor(plan.get(member.module, {}).get(member.direction, ()))
        if len(removed):
            # each index falls by the number of removed ones below it, of this and other groups
            index = index - torch.searchsorted(removed, index)
        members.append(
            replace(
                member,
                index=index,
                original=member.original[stays],
                unit=new_unit[member.unit[stays]],
            )
        )
    return replace(group, members=tuple(members), original_units=group.original_units[kept])
