"""Branches: the layers that only serve one group's channels, and go with it when all units go."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from slimnet.execution import PRODUCERS, has_one_axis
from slimnet.groups.find import matches
from slimnet.groups.group import Group, plan_for, shrink_groups
from slimnet.groups.probe import Probe
from slimnet.groups.provable import select_right
from slimnet.groups.prove import TOLERANCE
from slimnet.records import Plan

Needed = Sequence[tuple[str, str]]
"""The names of branches that cannot go, each with the reason."""


@dataclass(frozen=True)
class Branch:
    """Groups that can only lose all of their units together, and what becomes of the layers.

    ``name`` is that of one of the groups, ``groups`` holds the names of all. Nothing is left of the
    layers ``gone``, and only the bias of the layers ``constant``, which lose all inputs.
    """

    name: str
    groups: tuple[str, ...]
    gone: tuple[str, ...]
    constant: tuple[str, ...]

    def units(self, groups: Sequence[Group]) -> list[Tensor]:
        """Return for each of these groups all units if it is of the branch, otherwise none."""
        return [torch.arange(g.units if g.name in self.groups else 0) for g in groups]

    def plan(self, groups: Sequence[Group], *, original: bool = False) -> Plan:
        """Return the plan that removes the branch; see ``plan_for``."""
        return plan_for(groups, self.units(groups), original=original)


def branches_of(model: nn.Module, groups: Sequence[Group]) -> list[Branch]:
    """Return the branch of each group, each branch once; the model is not changed.

    Nothing is proven. ``groups`` are those of the network as it stands.
    """
    closures, found = _Closures(model, groups), dict[tuple[str, ...], Branch]()
    for group in groups:
        branch = closures.branch(group.name)
        found.setdefault(branch.groups, branch)
    return list(found.values())


class _Closures:
    """Finds the groups and layers that go when all units of a group go.

    A group goes too if nothing that reads its channels is left, or if its channels have become
    constant.
    """

    def __init__(self, model: nn.Module, groups: Sequence[Group]) -> None:
        self._model = model
        self._groups = {group.name: group for group in groups}
        self._consumers = {group.name: set(group.consumers) for group in groups}
        # a norm or depthwise convolution only passes the channels on
        sides = {(m.module, m.direction) for group in groups for m in group.members}
        through = {name for name, _ in sides if has_one_axis(model.get_submodule(name))}
        self._sources = {
            group.name: {m.module for m in group.members if m.direction == "out"} - through
            for group in groups
        }
        # by group: how many channels it has of each side of a module
        self._shares: dict[str, Counter[tuple[str, str]]] = {}
        self._channels: dict[tuple[str, str], int] = {}
        for group in groups:
            places = {(m.module, m.direction, i) for m in group.members for i in m.index.tolist()}
            self._shares[group.name] = Counter((module, side) for module, side, _ in places)
            self._channels |= {(m.module, m.direction): m.channels for m in group.members}

    def branch(self, start: str) -> Branch:
        """Return what goes with the group of this name."""
        chosen, new = set[str](), {start}
        lost: Counter[tuple[str, str]] = Counter()
        gone, constant = set[str](), set[str]()
        while new:
            chosen |= new
            for name in new:
                lost.update(self._shares[name])
            empty = {side for side, count in lost.items() if count == self._channels[side]}
            gone = {module for module, direction in empty if direction == "out"}
            constant = {module for module, direction in empty if direction == "in"} - gone
            new = {
                name
                for name in self._groups.keys() - chosen
                if self._consumers[name] <= gone or self._sources[name] <= gone | constant
            }
        return Branch(
            name=start,
            groups=tuple(name for name in self._groups if name in chosen),
            gone=_layers(self._model, gone),
            constant=_layers(self._model, constant),
        )


def _layers(model: nn.Module, names: Collection[str]) -> tuple[str, ...]:
    """Return the convolutions and linear layers among these modules, in model order."""
    return tuple(
        name
        for name, module in model.named_modules()
        if name in names and isinstance(module, PRODUCERS)
    )


def find_branches(
    model: nn.Module,
    groups: Sequence[Group],
    example: Any,
    *,
    keep: Sequence[str] = (),
    seed: int = 0,
) -> tuple[list[Branch], Needed]:
    """Find every branch whose removal is proven right; the model is not changed.

    Each branch is tried alone: the slim network must compute what the masked one does, its output
    must still depend on its input. Then all that can go one after the other are tried together.

    Args:
        model: a network in eval mode.
        groups: its groups; see ``keep_layers``.
        example: inputs of the model, at least two that differ; see ``find_groups``.
        keep: globs over module names; a layer that matches does not go, nor become constant.
        seed: for the noise on the weights of the proof.

    Returns:
        The branches, and the name of each other branch with the reason why it cannot go.

    Raises:
        InputError: the proof cannot be run on this network, or it gives another output each time.
    """
    candidates = branches_of(model, groups)
    if not candidates:
        return [], []
    probe = Probe(model, example, seed)
    needed: dict[int, str] = {}
    for number, branch in enumerate(candidates):
        reason = _kept(branch, keep) or probe.objection_to_branch(branch.plan(groups))
        if reason:
            needed[number] = reason
    right = [number for number in range(len(candidates)) if number not in needed]
    apart = _apart(model, groups, [candidates[number] for number in right])
    for check in (probe.objection, probe.objection_in_training):

        def objection(
            chosen: Sequence[int], tolerance: float, check: Callable[..., str] = check
        ) -> str:
            names = {name for number in chosen for name in candidates[number].groups}
            part = [group for group in groups if group.name in names]
            units = [torch.arange(group.units) for group in part]
            return check(plan_for(part, units), tolerance)

        together = [number for number in right if candidates[number].name in apart]
        needed |= dict(select_right((), together, objection)[1])
        for number in set(right).difference(together):
            if text := objection([number], TOLERANCE):
                needed[number] = text
        right = [number for number in right if number not in needed]
    reasons = [(candidates[number].name, needed[number]) for number in sorted(needed)]
    return [candidates[number] for number in right], reasons


def open_branches(
    model: nn.Module, groups: Sequence[Group], branches: Sequence[Branch]
) -> list[Branch]:
    """Return the branches that can still go as they were found; the model is not changed.

    Where others have gone, a branch may have become the only way to a layer, and would now take
    more with it: of three that are concatenated, the last one. ``groups`` are of the channels left.
    """
    closures, found = _Closures(model, groups), []
    for branch in branches:
        left = tuple(group.name for group in groups if group.name in branch.groups)
        if left and closures.branch(left[0]).groups == left:
            found.append(branch)
    return found


def _apart(model: nn.Module, groups: Sequence[Group], branches: Sequence[Branch]) -> set[str]:
    """Return the names of branches that can go one after the other, as many as are found."""
    chosen = set()
    for branch in branches:
        if open_branches(model, groups, [branch]):
            groups = shrink_groups(groups, branch.units(groups))
            chosen.add(branch.name)
    return chosen


def _kept(branch: Branch, keep: Sequence[str]) -> str:
    """Return which layer of the branch is kept as asked, "" if none is."""
    for layer in (*branch.gone, *branch.constant):
        for pattern in keep:
            if matches(layer, pattern):
                return f"it holds {layer}, kept as asked (--keep {pattern})"
    return ""
