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
    "out". ``norm`` is the batch or group norm that alone reads the module's output, if any.
    ``channels`` is how many the module has on this side, in this group or not; 0 if that is not
    known.
    """

    module: str
    direction: Direction
    index: Tensor
    original: Tensor
    unit: Tensor
    norm: str | None = None
    channels: int = 0


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
    """Return, by layer, the batch or group norm that alone reads its output."""
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
    """Return the groups, renumbered, after ``units[i]`` of ``groups[i]`` were removed.

    A group that lost all units is dropped. Layers that are gone are in no group any more, and
    layers that give a constant have no gates. A group that is left without gates, or without a
    layer that reads its channels, is dropped too.
    """
    plan = plan_for(groups, units)
    gone, constant = emptied_layers(groups, plan)
    left = []
    for group, lost in zip(groups, units, strict=True):
        if any(member.module in plan for member in group.members):
            group = _without_layers(_shrink(group, lost, plan), gone, constant)
            if not (group.units and group.gates and group.consumers):
                continue
        # groups of untouched modules stay the same
        left.append(group)
    return left


def emptied_layers(groups: Sequence[Group], plan: Plan) -> tuple[set[str], set[str]]:
    """Return the modules that lose all outputs by the plan, and those that then give a constant.

    The plan is of these groups and in their numbering. A layer gives a constant where it loses all
    inputs, but not all outputs.
    """
    emptied = {
        (member.module, member.direction)
        for group in groups
        for member in group.members
        if member.channels
        and len(plan.get(member.module, {}).get(member.direction, ())) == member.channels
    }
    gone = {module for module, direction in emptied if direction == "out"}
    return gone, {module for module, direction in emptied if direction == "in"} - gone


def _without_layers(group: Group, gone: set[str], constant: set[str]) -> Group:
    """Return the group without the members that have no channels left in it."""
    members = (m for m in group.members if m.module not in gone and len(m.index))
    gates = (gate for gate in group.gates if gate.layer not in gone | constant)
    return replace(group, members=tuple(members), gates=tuple(gates))


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
                channels=max(0, member.channels - len(removed)),
            )
        )
    return replace(group, members=tuple(members), original_units=group.original_units[kept])


def connected(count: int, first: Tensor, second: Tensor) -> Tensor:
    """Return which of ``count`` numbers are connected: the same new number for each such set.

    The result is int64 (count,), from 0 without gaps. ``first[i]`` goes with ``second[i]``; both
    are int64 (pairs,).
    """
    least = torch.arange(count)
    while True:
        both = torch.minimum(least[first], least[second])
        lower = least.scatter_reduce(0, first, both, "amin")
        lower = lower.scatter_reduce(0, second, both, "amin")
        lower = lower[lower]
        if torch.equal(lower, least):
            break
        least = lower
    numbers: Tensor = torch.unique(least, return_inverse=True)[1]
    return numbers
