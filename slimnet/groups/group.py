"""What a group is: units that can only go whole, and every place in the network that goes with one.

A group's units are numbered 0 to ``units - 1`` as the network stands now; ``original_units`` keeps
the numbers that they had in the original network. Nothing here depends on torch-pruning.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor

from slimnet.records import Plan

Direction = Literal["out", "in"]


@dataclass(frozen=True)
class Member:
    """One side of one module. Entry i says: ``index[i]`` of that side goes with unit ``unit[i]``.

    ``index``, ``original`` and ``unit`` are int64 of shape (entries,); ``original`` is what
    ``index`` was in the original network. Norms and depthwise convolutions, whose two sides are
    one, stand as "out". ``norm`` is the batch norm that alone reads the module's output, if any.
    """

    module: str
    direction: Direction
    index: Tensor
    original: Tensor
    unit: Tensor
    norm: str | None = None


@dataclass(frozen=True)
class Gate:
    """Where a channel's 0/1 gate sits: on the output of ``module``, ``layer``'s or its norm's."""

    layer: str
    module: str


@dataclass(frozen=True)
class Group:
    """Units that go whole. ``gates`` has one entry for each layer that produces the channels."""

    name: str
    members: tuple[Member, ...]
    gates: tuple[Gate, ...]
    original_units: Tensor

    @property
    def units(self) -> int:
        """How many units are left."""
        return len(self.original_units)

    @property
    def consumers(self) -> tuple[str, ...]:
        """The layers that read the channels, by name, each once."""
        return tuple(dict.fromkeys(m.module for m in self.members if m.direction == "in"))

    def producer(self, layer: str) -> Member:
        """Return the member for the output side of ``layer``."""
        return next(m for m in self.members if m.module == layer and m.direction == "out")


def plan_for(groups: Sequence[Group], units: Sequence[Tensor], *, original: bool = False) -> Plan:
    """Return the plan that removes ``units[i]`` of ``groups[i]``, in the numbering of today.

    With ``original=True`` the indices are those of the original network.
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
        module: {side: tuple(sorted(indices)) for side, indices in sides.items()}
        for module, sides in collected.items()
    }


def merge_plans(first: Plan, second: Plan) -> Plan:
    """Return the union of two plans that use the same numbering."""
    merged: dict[str, dict[str, tuple[int, ...]]] = {m: dict(sides) for m, sides in first.items()}
    for module, sides in second.items():
        for side, indices in sides.items():
            before = merged.setdefault(module, {}).get(side, ())
            merged[module][side] = tuple(sorted({*before, *indices}))
    return merged


def shrink_groups(groups: Sequence[Group], units: Sequence[Tensor]) -> list[Group]:
    """Return the groups as they stand after ``units[i]`` of ``groups[i]`` are gone, renumbered."""
    plan = plan_for(groups, units)
    # what lies elsewhere in the network stays as it is
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
            # every index slides down by the number of removed ones below it, whoever removed them
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
