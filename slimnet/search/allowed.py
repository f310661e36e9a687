"""Down to which widths layers may go: those that pay on the runtime and that the user allows.

A width is the number of output channels of a layer, also where a grouped convolution makes one
unit of several channels: what the user asks for is what the slim network's layers show.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from slimnet.groups import Group, Member, output_channels
from slimnet.measure import next_lower_width
from slimnet.settings import Settings

ROUNDING = 1e-9  # 0.29 of 100 channels are 29, not 28.999999999999996


@dataclass(frozen=True)
class AllowedWidths:
    """What holds for every step of a search, in channels of layers.

    A slimmed layer has a multiple of ``multiple``, and no more than the next of the ascending
    widths ``paying`` (none: any width pays). ``fewest`` is what must stay of what a group has in a
    layer, by both names, and ``fixed`` how many channels of a layer are in no group.
    """

    paying: Sequence[int] = ()
    multiple: int = 1
    max_ratio: float | None = None
    fewest: Mapping[tuple[str, str], int] = field(default_factory=dict)
    fixed: Mapping[str, int] = field(default_factory=dict)

    @property
    def rules(self) -> list[str]:
        """What a width does that is allowed, in words: one part of a sentence for each rule."""
        rules = ["pays"] if self.paying else []
        rules += [f"is a multiple of {self.multiple}"] if self.multiple > 1 else []
        rules += [f"keeps to --max-ratio {self.max_ratio:g}"] if self.max_ratio is not None else []
        return rules

    def lower(self, widest: int) -> int:
        """Return the next lower width, where nothing but the kind of width limits it."""
        return next_lower_width(widest, self.paying) // self.multiple * self.multiple

    def room(self, group: Group) -> int:
        """Return how many units the group may still lose, whichever they are; never all."""
        room = group.units - 1
        for member in group.members:
            channels = torch.bincount(member.unit)
            spare = int(channels.sum()) - self._fewest(group, member)
            room = min(room, spare // int(channels.max()))
        return room

    def _fewest(self, group: Group, member: Member) -> int:
        # a layer that has only some of the group's units must not lose all it has
        return self.fewest.get((group.name, member.module), 1) if member.direction == "out" else 1

    def units_to_go(
        self, group: Group, orders: Sequence[Tensor], widths: Mapping[str, int], steps: int
    ) -> list[int]:
        """Return for each order how many units bring the group down by so many allowed widths.

        0 where none can.

        Args:
            group: as it stands.
            orders: in which its units would go, int64 (units,) each.
            widths: of all layers, as ``widths_now`` gives them.
            steps: widths to go down at once; fewer where there are fewer.
        """
        counts = (torch.bincount(m.unit, minlength=group.units) for m in group.members)
        if orders and all(bool((channels == channels[0]).all()) for channels in counts):
            # whichever units go, the widths are the same
            return [self._units_to_go(group, orders[0], widths, steps)] * len(orders)
        return [self._units_to_go(group, order, widths, steps) for order in orders]

    def _units_to_go(
        self, group: Group, order: Tensor, widths: Mapping[str, int], steps: int
    ) -> int:
        allowed = torch.ones(group.units - 1, dtype=torch.bool)
        for member in group.members:
            allowed &= _left(member, order) >= self._fewest(group, member)
        for gate in group.gates:
            producer = group.producer(gate.layer)
            elsewhere = widths[gate.layer] - len(producer.index)
            allowed &= (_left(producer, order) + elsewhere) % self.multiple == 0
        left = _left(group.producer(group.gates[0].layer), order)
        width, gone = len(group.producer(group.gates[0].layer).index), 0
        for _ in range(steps):
            fitting = (allowed & (left <= next_lower_width(width, self.paying))).nonzero()
            if len(fitting) == 0:
                break
            gone = int(fitting[0]) + 1
            width = int(left[gone - 1])
        return gone

    def hold_after(self, groups: Sequence[Group], gone: Sequence[Tensor]) -> bool:
        """Tell whether every layer that loses channels is left a multiple.

        ``gone[i]`` are the units to go of ``groups[i]``, by their places in it as it stands.
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
    model: nn.Module, groups: Sequence[Group], settings: Settings, paying: Sequence[int] = ()
) -> AllowedWidths:
    """Return what the settings allow; the model and its groups are those before any removal.

    ``max_ratio`` and ``round_to`` are read. The share counts on what each group has in a layer, so
    it holds for the layer as well.
    """
    fewest = {}
    for group in groups:
        for gate in group.gates:
            channels = len(group.producer(gate.layer).index)
            share = 1.0 if settings.max_ratio is None else settings.max_ratio
            least = channels - math.floor(share * channels + ROUNDING)
            fewest[group.name, gate.layer] = max(1, least)
    fixed = Counter(output_channels(model)) - _in_groups(groups)
    multiple = settings.round_to if isinstance(settings.round_to, int) else 1
    return AllowedWidths(paying, multiple, settings.max_ratio, fewest, fixed)


def _in_groups(groups: Sequence[Group]) -> Counter[str]:
    widths: Counter[str] = Counter()
    for group in groups:
        for gate in group.gates:
            widths[gate.layer] += len(group.producer(gate.layer).index)
    return widths


def _left(member: Member, order: Tensor) -> Tensor:
    """Return what a member has after one, two, ... units are gone in order, (units - 1,)."""
    channels = torch.bincount(member.unit, minlength=len(order))
    return channels.sum() - torch.cumsum(channels[order], 0)[:-1]
