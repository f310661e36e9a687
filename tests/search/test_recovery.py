"""What is tried beyond the repair, when, and that it is kept only where it helps."""

from __future__ import annotations

import copy
import dataclasses
from importlib import import_module

import pytest
import torch
from torch import nn

from slimnet.groups import find_groups, prove_slim
from slimnet.measure import measure_quality, paired_drop
from slimnet.records import Drop
from slimnet.recover import Targets
from slimnet.search import layout, search
from slimnet.search.recovery import FINE_TUNED, NORMS, RESOLVED, Judged, Recovery
from slimnet.search.state import first_state
from slimnet.search.walk import Walk
from slimnet.settings import Settings


@pytest.fixture
def found(trained):
    model, splits = trained
    example = splits.calibration.batches[0][0][:2]
    return model, splits, find_groups(model, example)[0]


def drop_of(points: float) -> Drop:
    return Drop(90, 90 - points, points, points, points, 0.5, 100)


class Scripted:
    """Stands in for a state: every recovery leads to a state with a given drop."""

    def __init__(self, points, ways, tuned=False):
        self.points, self.ways, self.tuned, self.asked = points, ways, tuned, []

    def _way(self, name):
        self.asked.append(name)
        return self.ways[name]

    def resolved(self, *_):
        return self._way(RESOLVED)

    def with_norms_recalibrated(self, *_):
        return self._way(NORMS)

    def finetuned(self, *_):
        return self._way(FINE_TUNED), None


def recovery_of(splits, **dials):
    return Recovery(
        Targets(nn.Identity(), splits.calibration.batches), splits.calibration,
        Settings(max_drop=5, **dials), lambda state: drop_of(state.points),
    )  # fmt: skip


@pytest.mark.parametrize(("points", "tried"), [(4.0, False), (6.0, True), (9.0, False)])
def test_re_solving_is_tried_just_beyond_the_budget_but_not_again_at_once(found, points, tried):
    recovery = recovery_of(found[1])
    better = Scripted(3.0, {})
    state = Scripted(points, {RESOLVED: better})
    got = recovery.after_step(state, 1)
    assert (got.state is better, got.recovered_by == (RESOLVED,)) == (tried, tried)
    assert got.drop.points == (3.0 if tried else points)
    assert recovery.after_step(state, 2).state is state
    assert (recovery.after_step(state, 3, last=True).state is better) == tried


def test_what_makes_it_worse_is_not_kept(found):
    recovery = recovery_of(found[1], finetune_epochs=1)
    state = Scripted(6.0, {RESOLVED: Scripted(7.0, {}), FINE_TUNED: Scripted(6.5, {})})
    assert recovery.after_step(state, 4) == Judged(state, drop_of(6.0))
    assert state.asked == [RESOLVED, FINE_TUNED]


def test_fine_tuning_comes_every_few_steps_and_where_the_budget_breaks(found):
    recovery = recovery_of(found[1], finetune_epochs=1, finetune_every=3, repair=False)
    within, beyond = (Scripted(points, {FINE_TUNED: Scripted(0.5, {})}) for points in (1.0, 6.0))
    rounds = [bool(recovery.after_step(within, n).recovered_by) for n in range(1, 8)]
    assert rounds == [False, False, True, False, False, True, False]
    assert recovery.after_step(beyond, 8).recovered_by == (FINE_TUNED,)
    assert recovery.after_step(beyond, 9).recovered_by == ()


def test_everything_is_tried_at_the_end(found):
    better = Scripted(2.0, {NORMS: Scripted(1.0, {})})
    state = Scripted(4.0, {RESOLVED: better})
    got = recovery_of(found[1]).at_the_end(Judged(state, drop_of(4.0), (RESOLVED,)), 5)
    assert (got.state.points, got.drop.points) == (1.0, 1.0)
    assert got.recovered_by == (RESOLVED, NORMS)
    tuned = Judged(Scripted(4.0, {NORMS: None}, tuned=True), drop_of(4.0))
    assert recovery_of(found[1]).at_the_end(tuned, 5) == tuned


def test_fine_tuning_removes_more_than_without_and_is_told(found):
    model, splits, groups = found
    before = copy.deepcopy(model.state_dict())
    dials = Settings(max_drop=5, confidence=0.5, objective="params", repair=False)
    without, _ = search(model, groups, splits, dials)
    tuned = dataclasses.replace(dials, finetune_epochs=8, finetune_every=2, augment=False)
    trajectory, slim = search(model, groups, splits, tuned)
    assert removed(trajectory) > removed(without)
    assert any(FINE_TUNED in step.recovered_by for step in trajectory.steps)
    assert trajectory.fine_tunings
    assert not without.fine_tunings
    example = splits.calibration.batches[0][0][:2]
    prove_slim(model, slim, trajectory.plan, example)
    quality = [measure_quality(network, splits.selection) for network in (model, slim)]
    assert paired_drop(*quality, 0.5).points <= 5
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())


def test_fine_tuning_learns_from_images_that_memory_has_no_room_for(found, monkeypatch):
    model, splits, groups = found
    number = splits.calibration.batches[0][0][0].numel()
    monkeypatch.setattr(layout, "MOST_ELEMENTS", number * (splits.calibration.images // 3))
    settings = Settings(max_drop=5, confidence=0.5, objective="params", finetune_epochs=1)
    told = search(model, groups, splits, settings)[0].fine_tunings.values()
    assert told
    used = {tuning.learning_images + tuning.judging_images for tuning in told}
    assert used == {splits.calibration.images}


def removed(trajectory):
    return trajectory.steps[trajectory.kept_steps - 1].parameters_removed_percent


def test_the_plan_is_that_of_the_steps_not_taken_back(found):
    model, splits, groups = found
    trajectory, _ = search(model, groups, splits, Settings(max_drop=5, confidence=0.5, step=1))
    planned = sum(len(sides.get("out", ())) for name, sides in trajectory.plan.items()
                  if isinstance(model.get_submodule(name), nn.Conv2d))  # fmt: skip
    kept = [s for s in trajectory.steps[: trajectory.kept_steps] if not s.taken_back]
    assert planned == sum(step.channels_removed for step in kept)


def test_re_solving_that_changes_no_layer_is_no_recovery(found):
    model, splits, groups = found
    state = first_state(model, groups, splits.calibration, repair=True)
    targets = Targets(model, splits.calibration.batches)
    assert state.resolved(targets) is None, "nothing is gone, so nothing is to be recovered"


def test_what_was_re_solved_is_settled_until_all_layers_change(found):
    model, splits, groups = found
    targets = Targets(model, splits.calibration.batches)
    first = first_state(model, groups, splits.calibration, repair=True)
    first.model[4].running_mean.add_(3)
    narrowed = first.without([torch.arange(4), torch.arange(3)])
    assert narrowed.settled is None
    resolved = narrowed.resolved(targets)
    assert resolved.settled == narrowed.plan
    assert resolved.resolved(targets) is None
    less = resolved.without([torch.arange(1), torch.arange(0)])
    assert less.settled == narrowed.plan != less.plan
    mended = dataclasses.replace(narrowed, settled={}).with_norms_recalibrated(targets)
    assert mended.settled is None


def test_norm_statistics_are_kept_only_where_the_loss_falls(found):
    model, splits, groups = found
    state = first_state(model, groups, splits.calibration, repair=True)
    state.model[4].running_mean.add_(3)
    mended = state.with_norms_recalibrated(Targets(model, splits.calibration.batches))
    assert mended is not None
    assert torch.allclose(mended.model[4].running_mean, model[4].running_mean, atol=0.5)
    assert torch.allclose(state.model[4].running_mean, model[4].running_mean + 3)


@pytest.mark.parametrize(("macs", "images"), [(2**10, 4096), (2**29, 2048), (2**40, 512)])
def test_layers_are_solved_anew_on_more_images_where_that_takes_little(
    found, monkeypatch, macs, images
):
    model, splits, _ = found
    module = import_module("slimnet.search.image_sets")
    # of three layers, one has all of the multiply-accumulates
    monkeypatch.setattr(module, "macs_cost", lambda *_: lambda name, width: macs * (name == "0"))
    monkeypatch.setattr(module, "RESOLVE_MACS", 3 * 2**40)
    assert module._images_to_resolve(model, splits.calibration.batches[0][0][:1]) == images


def test_what_recovered_a_state_before_the_search_went_on_is_told_of_its_step(found, monkeypatch):
    model, splits, groups = found
    more = []

    def at_the_end(self, kept, number):
        more.append(number)
        drop = dataclasses.replace(kept.drop, upper_points=kept.drop.upper_points - 1)
        return Judged(kept.state, drop, (RESOLVED,))

    def within(self, judged):
        return bool(more) or len(self.steps) < 3

    monkeypatch.setattr(Recovery, "at_the_end", at_the_end)
    monkeypatch.setattr(Walk, "_within", within)
    dials = Settings(max_drop=5, confidence=0.5, objective="params")
    trajectory, _ = search(model, groups, splits, dials)
    assert trajectory.kept_steps > more[0]
    assert RESOLVED in trajectory.steps[more[0] - 1].recovered_by
    assert trajectory.finished_by == (RESOLVED,)
