"""The network as it stands during the search: slim so far, repaired, and what is gone from it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from slimnet.execution import (
    Change,
    MemoryBudget,
    RunningNetwork,
    prepare_running,
    removed_layers,
    set_values,
)
from slimnet.finetune import finetune
from slimnet.groups import Group, cut_out, merge_plans, norms_behind, plan_for, shrink_groups
from slimnet.load import copied
from slimnet.options import FinetuneOptions
from slimnet.records import FineTuning, Plan, Split
from slimnet.repair import (
    InverseGram,
    TeacherOutputs,
    fit_classifier,
    gather_inverse_grams,
    recalibrate_norms,
    refit,
    removed_inputs,
    repaired_weights,
    shrink_inverse_grams,
)
from slimnet.search.trial import groups_read_only_by_consumers, make_trial
from slimnet.tasks import CLASSIFICATION, Task


@dataclass(frozen=True)
class State:
    """A slim network. No method changes it.

    Args:
        running: the network.
        groups: of the channels that are left.
        plan: what is gone, in the numbering of the original network.
        inverse_grams: of the consumers, in the numbering of this network; none without repair.
        tuned: it was trained, and its layers no longer aim at the original's outputs.
        plan_at_last_refit: None if no layer was refitted, or all have changed since.
        task: what the network is for.
        read_only_by_consumers: the names of the groups whose channels only their consumers read.
    """

    running: RunningNetwork
    groups: Sequence[Group]
    plan: Plan
    inverse_grams: Mapping[str, InverseGram]
    tuned: bool = False
    plan_at_last_refit: Plan | None = None
    task: Task = CLASSIFICATION
    read_only_by_consumers: frozenset[str] = frozenset()

    @property
    def model(self) -> nn.Module:
        """The network, with its norms."""
        return self.running.model

    def trial(self, units: Sequence[Tensor]) -> Change:
        """Return what the removal of ``units[i]`` of group i changes in the running network."""
        touched = {group.name for group, gone in zip(self.groups, units, strict=True) if len(gone)}
        return make_trial(
            self.running,
            self.inverse_grams,
            plan_for(self.groups, units),
            consumers_only=touched <= self.read_only_by_consumers,
        )

    def trial_bytes(self, units: Sequence[Tensor]) -> int:
        """Return about how many bytes such a trial takes: the weights of the layers it changes."""
        touched = [group for group, gone in zip(self.groups, units, strict=True) if len(gone)]
        layers = {member.module for group in touched for member in group.members}
        return sum(
            parameter.nbytes
            for layer in layers
            for parameter in self.model.get_submodule(layer).parameters(recurse=False)
        )

    def without(self, units: Sequence[Tensor]) -> State:
        """Return the state after ``units[i]`` of group i are gone."""
        now, model = plan_for(self.groups, units), self.slim_without(units)
        left = shrink_inverse_grams(self.inverse_grams, removed_inputs(self.model, now))
        gone = removed_layers(model)
        return replace(
            self,
            running=self.running.with_model(model),
            groups=shrink_groups(self.groups, units),
            plan=merge_plans(self.plan, plan_for(self.groups, units, original=True)),
            inverse_grams={name: known for name, known in left.items() if name not in gone},
        )

    def slim_without(self, units: Sequence[Tensor]) -> nn.Module:
        """Return a copy of the network without ``units[i]`` of group i, repaired."""
        now = plan_for(self.groups, units)
        model = copied(self.model)
        set_values(model, repaired_weights(model, now, self.inverse_grams))
        return cut_out(model, now)

    def refitted(self, teacher: TeacherOutputs) -> State | None:
        """Return the state with consumers refitted to the original's outputs, None if none is.

        Layers that nothing has changed for since their last refit stay as they are. See ``refit``.
        """
        model = copied(self.model)
        changed = refit(teacher, model, self.plan, self.plan_at_last_refit)
        return replace(self._changed(model), plan_at_last_refit=self.plan) if changed else None

    def with_classifier_fitted(self, teacher: TeacherOutputs) -> State | None:
        """Return the state with its last layer fitted to labels, None where it can't be."""
        model = copied(self.model)
        return self._changed(model) if fit_classifier(teacher, model) else None

    def with_norms_recalibrated(self, teacher: TeacherOutputs) -> State | None:
        """Return the state with the norm statistics of the teacher's images, None without norms."""
        model = copied(self.model)
        return (
            self._changed(model) if recalibrate_norms(model, teacher.batches, self.task) else None
        )

    def finetuned(
        self, original: nn.Module, calibration: Split, options: FinetuneOptions, seed: int
    ) -> tuple[State | None, FineTuning]:
        """Return the state after training, None where it did not help, and the record of it.

        Its inverse Gram matrices are gathered anew, since its layers read other inputs now.
        """
        model = copied(self.model)
        batches, images = calibration.batches, calibration.images
        record = finetune(model, original, batches, options, seed=seed, task=self.task)
        if not record.kept:
            return None, record
        inverse_grams: Mapping[str, InverseGram] = {}
        if self.inverse_grams:
            inverse_grams = gather_inverse_grams(model, self.groups, batches, images, self.task)
        return replace(self._changed(model), inverse_grams=inverse_grams, tuned=True), record

    def _changed(self, model: nn.Module) -> State:
        return replace(self, running=self.running.with_model(model), plan_at_last_refit=None)


def first_state(
    model: nn.Module,
    groups: Sequence[Group],
    calibration: Split,
    *,
    repair: bool,
    memory_format: torch.memory_format = torch.contiguous_format,
    task: Task = CLASSIFICATION,
    memory: MemoryBudget | None = None,
) -> State:
    """Return the state before anything is removed: a copy of the model, without gradients.

    Args:
        model: the trained network, in eval mode.
        groups: its groups.
        calibration: the images that inverse Gram matrices are gathered on.
        repair: whether trials are repaired.
        memory_format: that of the copy's weights.
        task: what the network is for.
        memory: what may be cached while the state, or one that follows from it, runs.
    """
    working = copied(model).eval()
    for parameter in working.parameters():
        parameter.requires_grad_(False)
    if memory_format is torch.channels_last:
        working = working.to(memory_format=memory_format)
    inverse_grams: Mapping[str, InverseGram] = {}
    if repair:
        inverse_grams = gather_inverse_grams(
            working, groups, calibration.batches, calibration.images, task
        )
    few = task.few(calibration.batches)

    def run(network: nn.Module) -> Sequence[Tensor]:
        return task.outputs(network, few)

    running = prepare_running(working, norms_behind(groups), run, memory)
    read_only_by_consumers = groups_read_only_by_consumers(running, groups, run)
    return State(
        running, groups, {}, inverse_grams, task=task, read_only_by_consumers=read_only_by_consumers
    )
