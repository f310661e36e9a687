"""The network as it stands during the search: slim so far, repaired, and what is gone from it."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property, partial

import torch
from torch import Tensor, nn

from slimnet.groups import Group, apply_plan, merge_plans, plan_for, shrink_groups
from slimnet.measure import CLASSIFICATION, Task, mean_loss
from slimnet.records import FineTuning, Plan, Split
from slimnet.recover import (
    Moments,
    Targets,
    TrainingRecipe,
    finetune,
    gather_moments,
    recalibrate_norms,
    removed_inputs,
    repaired_weights,
    resolve,
    set_values,
    shrink_moments,
)
from slimnet.search.folding import folded, norms_to_fold


@dataclass(frozen=True)
class State:
    """A slim network, its groups and moments in its own numbering, and its plan in the original.

    ``tuned`` says that it was trained, so that its layers no longer aim at the original's outputs,
    and ``renewals`` how often weights or statistics of all its layers changed at once. ``settled``
    is the plan as it was at the last re-solving, None where all layers have changed since, or never
    were re-solved.
    ``norms`` are those that are folded where the network runs, by layer.
    """

    model: nn.Module
    groups: Sequence[Group]
    plan: Plan
    moments: Mapping[str, Moments]
    tuned: bool = False
    renewals: int = 0
    settled: Plan | None = None
    task: Task = CLASSIFICATION
    norms: Mapping[str, str] = field(default_factory=dict)

    @cached_property
    def running(self) -> nn.Module:
        """What gives the model's outputs faster: a copy with norms folded, or the model itself."""
        return folded(self.model, self.norms) if self.norms else self.model

    def narrows(self, plan: Plan, renewals: int) -> bool:
        """Tell whether a state with such a plan and renewals is this one with channels to lose."""
        return renewals == self.renewals and all(
            set(gone) <= set(self.plan.get(name, {}).get(side, ()))
            for name, sides in plan.items()
            for side, gone in sides.items()
        )

    def without(self, units: Sequence[Tensor]) -> State:
        """Return the state after ``units[i]`` of group i are gone; this one is not changed."""
        now = plan_for(self.groups, units)
        model = copy.deepcopy(self.model)
        set_values(model, repaired_weights(model, now, self.moments))
        return replace(
            self,
            model=apply_plan(model, now),
            groups=shrink_groups(self.groups, units),
            plan=merge_plans(self.plan, plan_for(self.groups, units, original=True)),
            moments=shrink_moments(self.moments, removed_inputs(self.model, now)),
        )

    def resolved(self, targets: Targets) -> State | None:
        """Return the state with consumers fitted anew to the original's outputs, None if none is.

        See ``resolve``: the loss on images not solved on judges, and layers that nothing has
        changed for since they were last re-solved stay as they are.
        """
        model = copy.deepcopy(self.model)
        changed = resolve(targets, model, self.plan, self.moments, self.settled)
        return replace(self._renewed(model), settled=self.plan) if changed else None

    def with_norms_recalibrated(self, targets: Targets) -> State | None:
        """Return the state with new norm statistics, or None where that does not help.

        The statistics are those of the images to solve on; the loss on the others judges.
        """
        model = copy.deepcopy(self.model)
        if not recalibrate_norms(model, targets.solving, self.task):
            return None
        before, after = (mean_loss(m, targets.judging, self.task) for m in (self.model, model))
        better = after < before
        return self._renewed(model) if better else None

    def finetuned(
        self, original: nn.Module, calibration: Split, recipe: TrainingRecipe, seed: int
    ) -> tuple[State | None, FineTuning]:
        """Return the state after a round of training, None where it did not help, and its record.

        The moments are gathered anew: after training the layers read something else.
        """
        model = copy.deepcopy(self.model)
        batches, images = calibration.batches, calibration.images
        told = finetune(model, original, batches, recipe, seed=seed, task=self.task)
        if not told.kept:
            return None, told
        moments: Mapping[str, Moments] = {}
        if self.moments:
            moments = gather_moments(model, self.groups, batches, images, self.task)
        return replace(self._renewed(model), moments=moments, tuned=True), told

    def _renewed(self, model: nn.Module) -> State:
        return replace(self, model=model, renewals=self.renewals + 1, settled=None)


def first_state(
    model: nn.Module,
    groups: Sequence[Group],
    calibration: Split,
    *,
    repair: bool,
    memory_format: torch.memory_format = torch.contiguous_format,
    task: Task = CLASSIFICATION,
) -> State:
    """Return the state before anything is removed: a copy of the model, without gradients."""
    working = copy.deepcopy(model).eval()
    for parameter in working.parameters():
        parameter.requires_grad_(False)
    if memory_format is torch.channels_last:
        working = working.to(memory_format=memory_format)
    moments: Mapping[str, Moments] = {}
    if repair:
        moments = gather_moments(working, groups, calibration.batches, calibration.images, task)
    run = partial(task.outputs, batch=task.few(calibration.batches))
    norms = norms_to_fold(working, groups, run)
    return State(working, groups, {}, moments, task=task, norms=norms)
