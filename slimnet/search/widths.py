"""The widths that layers may have: those that pay on the runtime and that the user allows.

A width is the number of output channels of a layer, also where a grouped convolution makes one
unit of several channels. So the layers of the slim network show the number that the user asked for.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from slimnet.execution import output_channels
from slimnet.groups import Group, Member
from slimnet.options import ObjectiveOptions
from slimnet.timing import next_lower_width

ROUNDING = 1e-9  # 0.29 of 100 channels are 29, not 28.999999999999996


@dataclass(frozen=True)
class AllowedWidths:
    """Rules on the widths of slimmed layers, in channels.

    A width is a multiple of ``multiple``. Every reduction goes at least to the next lower width in
    ``paying``, which is ascending (empty: any width pays). ``min_channels`` holds, by group and
    layer, how many of the group's channels must stay there. ``fixed`` is how many channels of a
    layer are in no group.
    """

    paying: Sequence[int] = ()
    multiple: int = 1
    max_ratio: float | None = None
    min_channels: Mapping[tuple[str, str], int] = field(default_factory=dict)
    fixed: Mapping[str, int] = field(default_factory=dict)

    @property
    def rules(self) -> list[str]:
        """The rules in words, each as the end of a sentence "a width that ..."."""
        rules = ["pays"] if self.paying else []
        rules += [f"is a multiple of {self.multiple}"] if self.multiple > 1 else []
        rules += [f"keeps to --max-ratio {self.max_ratio:g}"] if self.max_ratio is not None else []
        return rules

    def room(self, group: Group) -> int:
        """Return how many units the group may still lose, whichever they are; never all."""
        room = group.units - 1
        for member in group.members:
            channels = torch.bincount(member.unit)
            removable = int(channels.sum()) - self._must_stay(group, member)
            room = min(room, removable // int(channels.max()))
        return room

    def _must_stay(self, group: Group, member: Member) -> int:
        # a layer that has only some of the group's units must not lose all it has
        if member.direction == "in":
            return 1
        return self.min_channels.get((group.name, member.module), 1)

    def counts(self, group: Group, order: Tensor, widths: Mapping[str, int]) -> list[int]:
        """Return the numbers of units to remove that leave allowed widths, ascending.

        Each goes down to another paying width.

        Args:
            group: as it stands.
            order: in which its units would go, int64 (units,).
            widths: of all layers, see ``widths_now``.
        """
        allowed = torch.ones(group.units - 1, dtype=torch.bool)
        for member in group.members:
            allowed &= _left(member, order) >= self._must_stay(group, member)
        for gate in group.gates:
            producer = group.producer(gate.layer)
            elsewhere = widths[gate.layer] - len(producer.index)
            allowed &= (_left(producer, order) + elsewhere) % self.multiple == 0
        counts = []
        left = _left(group.producer(group.gates[0].layer), order).tolist()
        width = len(group.producer(group.gates[0].layer).index)
        for number in allowed.nonzero().flatten().tolist():
            if left[number] <= next_lower_width(width, self.paying):
                counts.append(number + 1)
                width = left[number]
        return counts

    def are_multiples_after(self, groups: Sequence[Group], gone: Sequence[Tensor]) -> bool:
        """Return whether every layer that loses channels is left with a multiple.

        ``gone[i]`` are the units to remove from ``groups[i]``, in its present numbering.
        """
        widths, lost = self.widths_now(groups), Counter[str]()
        for group, units in zip(groups, gone, strict=True):
            for gate in group.gates:
                lost[gate.layer] += int(torch.isin(group.producer(gate.layer).unit, units).sum())
        return all(
            (widths[layer] - less) % self.multiple == 0 for layer, less in lost.items() if less
        )

    def widths_now(self, groups: Sequence[Group]) -> Mapping[str, int]:
        """Return how many channels every layer of these groups has."""
        return Counter(self.fixed) + _in_groups(groups)


def allow_widths(
    model: nn.Module, groups: Sequence[Group], options: ObjectiveOptions, paying: Sequence[int] = ()
) -> AllowedWidths:
    """Return the rules that the options give; nothing is removed yet from model and groups.

    ``max_ratio`` holds for the channels that each group has in a layer, and so for the layer as
    well. The model is not changed.
    """
    min_channels = {}
    for group in groups:
        for gate in group.gates:
            channels = len(group.producer(gate.layer).index)
            ratio = 1.0 if options.max_ratio is None else options.max_ratio
            must_stay = channels - math.floor(ratio * channels + ROUNDING)
            min_channels[group.name, gate.layer] = max(1, must_stay)
    fixed = Counter(output_channels(model)) - _in_groups(groups)
    multiple = options.round_to if isinstance(options.round_to, int) else 1
    return AllowedWidths(paying, multiple, options.max_ratio, min_channels, fixed)


def _in_groups(groups: Sequence[Group]) -> Counter[str]:
    widths: Counter[str] = Counter()
    for group in groups:
        for gate in group.gates:
            widths[gate.layer] += len(group.producer(gate.layer).index)
    return widths


def _left(member: Member, order: Tensor) -> Tensor:
    """Return the channels left of a member after 1, 2, ... units went in order, (units - 1,)."""
    channels = torch.bincount(member.unit, minlength=len(order))
    return channels.sum() - torch.cumsum(channels[order], 0)[:-1]
