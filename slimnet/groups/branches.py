"""Branches: the layers that only serve one group's channels, and go with it when all units go."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from slimnet.execution import PRODUCERS, has_one_axis
from slimnet.groups.find import matches
from slimnet.groups.group import Group, emptied_layers, plan_for
from slimnet.groups.probe import Probe
from slimnet.groups.provable import select_right
from slimnet.records import Plan

Needed = list[tuple[str, str]]
"""The first groups of branches that cannot go, each with the reason."""


@dataclass(frozen=True)
class Branch:
    """Groups that can only lose all of their units together, and what becomes of the layers.

    ``name`` is that of its first group, ``groups`` holds the names of all. Nothing is left of the
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
    found: dict[tuple[str, ...], Branch] = {}
    for group in groups:
        branch = _branch(model, groups, group)
        found.setdefault(branch.groups, branch)
    return list(found.values())


def _branch(model: nn.Module, groups: Sequence[Group], start: Group) -> Branch:
    """Return what goes when all units of ``start`` go.

    A group goes too if nothing that reads its channels is left, or if its channels have become
    constant.
    """
    chosen = {start.name}
    while True:
        part = [group for group in groups if group.name in chosen]
        plan = plan_for(part, [torch.arange(group.units) for group in part])
        gone, constant = emptied_layers(groups, plan)
        more = {
            group.name
            for group in groups
            if set(group.consumers) <= gone or _sources(model, group) <= gone | constant
        }
        if more <= chosen:
            break
        chosen |= more
    return Branch(
        name=part[0].name,
        groups=tuple(group.name for group in part),
        gone=_layers(model, gone),
        constant=_layers(model, constant),
    )


def _sources(model: nn.Module, group: Group) -> set[str]:
    """Return the layers that make the group's channels, from others than these channels."""
    made = {m.module for m in group.members if m.direction == "out"}
    return {name for name in made if not has_one_axis(model.get_submodule(name))}


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
    must still depend on its input, and it must still run in training. Then all are tried together.

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
    plans = [branch.plan(groups) for branch in candidates]
    needed: dict[int, str] = {}
    for number, (branch, plan) in enumerate(zip(candidates, plans, strict=True)):
        reason = (
            _kept(branch, keep)
            or probe.objection_to_branch(plan)
            or probe.objection_in_training(plan)
        )
        if reason:
            needed[number] = reason
    right = [number for number in range(len(plans)) if number not in needed]

    def objection(chosen: Sequence[int], tolerance: float) -> str:
        units = _all_units(groups, (candidates[number] for number in chosen))
        return probe.objection(plan_for(groups, units), tolerance)

    together, failing = select_right((), right, objection)
    needed |= dict(failing)
    reasons = [(candidates[number].name, needed[number]) for number in sorted(needed)]
    return [candidates[number] for number in together], reasons


def _kept(branch: Branch, keep: Sequence[str]) -> str:
    """Return which layer of the branch is kept as asked, "" if none is."""
    for layer in (*branch.gone, *branch.constant):
        for pattern in keep:
            if matches(layer, pattern):
                return f"it holds {layer}, kept as asked (--keep {pattern})"
    return ""


def _all_units(groups: Sequence[Group], branches: Iterable[Branch]) -> list[Tensor]:
    names = {name for branch in branches for name in branch.groups}
    return [torch.arange(group.units if group.name in names else 0) for group in groups]
