"""Recoveries: when they are tried, and kept only where they help; the accuracy of states."""

from __future__ import annotations

import dataclasses
from copy import deepcopy

import pytest
import torch
from torch import nn

from slimnet.execution.running import MemoryBudget
from slimnet.groups.find import find_groups
from slimnet.options import Options
from slimnet.records import CLASSIFIER, FINE_TUNING, NORM_STATISTICS, REFIT
from slimnet.records.data import Splits
from slimnet.records.measured import Drop
from slimnet.repair.teacher import TeacherOutputs
from slimnet.search.recovery import (
    REFIT_POINTS,
    AccuracyEvaluator,
    EvaluatedState,
    Recovery,
)
from slimnet.search.state import State, first_state
from slimnet.tasks.classification import CLASSIFICATION
from slimnet.tasks.task import Task

BUDGET_POINTS = 5.0


def drop_of(points: float) -> Drop:
    return Drop(90, 90 - points, points, points, points, 0.5, 100)


class Scripted:
    """Stands in for a state: every recovery leads to a state with a given drop."""

    def __init__(self, points, ways, tuned=False):
        self.points, self.ways, self.tuned, self.asked = points, ways, tuned, []

    def _way(self, name):
        self.asked.append(name)
        return self.ways.get(name)

    def refitted(self, *_):
        return self._way(REFIT)

    def with_classifier_fitted(self, *_):
        return self._way(CLASSIFIER)

    def with_norms_recalibrated(self, *_):
        return self._way(NORM_STATISTICS)

    def finetuned(self, *_):
        return self._way(FINE_TUNING), None


def recovery_of(splits, **changes):
    teacher = TeacherOutputs(nn.Identity(), splits.calibration.batches)
    return Recovery(
        teacher, teacher, splits.calibration,
        Options(max_drop=5, **changes), lambda state: drop_of(state.points),
    )  # fmt: skip


@pytest.mark.parametrize(("points", "tried"), [(4.0, False), (6.0, True), (9.0, False)])
def test_refitting_is_tried_just_beyond_the_budget_but_not_again_at_once(found, points, tried):
    recovery = recovery_of(found[1])
    better = Scripted(3.0, {})
    state = Scripted(points, {REFIT: better})
    got = recovery.after_step(state, 1)
    assert (got.state is better, got.recovered_by == (REFIT,)) == (tried, tried)
    assert got.drop.points == (3.0 if tried else points)
    assert recovery.after_step(state, 2).state is state
    assert (recovery.after_step(state, 3, last=True).state is better) == tried


def test_after_a_round_every_state_is_refitted_and_the_better_one_kept(found):
    recovery = recovery_of(found[1])
    for points, after, expected in ((1.0, 0.5, 0.5), (9.0, 3.0, 3.0), (2.0, 2.5, 2.0)):
        state = Scripted(points, {REFIT: Scripted(after, {})})
        got = recovery.after_round(state, 1)
        assert got.drop.points == expected
        assert got.recovered_by == ((REFIT,) if expected == after else ())
    tuned = Scripted(1.0, {}, tuned=True)
    assert recovery.after_round(tuned, 1) == EvaluatedState(tuned, drop_of(1.0))


def test_what_makes_it_worse_is_not_kept(found):
    recovery = recovery_of(found[1], finetune_epochs=1)
    state = Scripted(6.0, {REFIT: Scripted(7.0, {}), FINE_TUNING: Scripted(6.5, {})})
    assert recovery.after_step(state, 4) == EvaluatedState(state, drop_of(6.0))
    assert state.asked == [REFIT, FINE_TUNING]


def test_fine_tuning_comes_every_few_steps_and_where_the_budget_breaks(found):
    recovery = recovery_of(found[1], finetune_epochs=1, finetune_every=3, repair=False)
    within, beyond = (Scripted(points, {FINE_TUNING: Scripted(0.5, {})}) for points in (1.0, 6.0))
    rounds = [bool(recovery.after_step(within, n).recovered_by) for n in range(1, 8)]
    assert rounds == [False, False, True, False, False, True, False]
    assert recovery.after_step(beyond, 8).recovered_by == (FINE_TUNING,)
    assert recovery.after_step(beyond, 9).recovered_by == ()


def test_everything_is_tried_at_the_end(found):
    better = Scripted(2.0, {NORM_STATISTICS: Scripted(1.0, {})})
    state = Scripted(4.0, {REFIT: better})
    got = recovery_of(found[1]).at_the_end(EvaluatedState(state, drop_of(4.0), (REFIT,)), 5)
    assert (got.state.points, got.drop.points) == (1.0, 1.0)
    assert got.recovered_by == (REFIT, NORM_STATISTICS)
    tuned = EvaluatedState(Scripted(4.0, {NORM_STATISTICS: None}, tuned=True), drop_of(4.0))
    assert recovery_of(found[1]).at_the_end(tuned, 5) == tuned


def test_refitting_that_changes_no_layer_is_no_recovery(found):
    model, splits, groups = found
    state = first_state(model, groups, splits.calibration, repair=True)
    teacher = TeacherOutputs(model, splits.calibration.batches)
    assert state.refitted(teacher) is None, "nothing is gone, so nothing is to be recovered"


def test_a_refitted_plan_is_not_refitted_again_until_all_layers_change(found):
    model, splits, groups = found
    teacher = TeacherOutputs(model, splits.calibration.batches)
    first = first_state(model, groups, splits.calibration, repair=True)
    first.model[4].running_mean.add_(3)
    narrowed = first.without([torch.arange(4), torch.arange(3)])
    assert narrowed.plan_at_last_refit is None
    refitted = narrowed.refitted(teacher)
    assert refitted.plan_at_last_refit == narrowed.plan
    assert refitted.refitted(teacher) is None
    less = refitted.without([torch.arange(1), torch.arange(0)])
    assert less.plan_at_last_refit == narrowed.plan != less.plan
    mended = dataclasses.replace(narrowed, plan_at_last_refit={}).with_norms_recalibrated(teacher)
    assert mended.plan_at_last_refit is None


def test_norm_statistics_are_those_of_the_images(found):
    model, splits, groups = found
    state = first_state(model, groups, splits.calibration, repair=True)
    state.model[4].running_mean.add_(3)
    mended = state.with_norms_recalibrated(TeacherOutputs(model, splits.calibration.batches))
    assert mended is not None
    assert torch.allclose(mended.model[4].running_mean, model[4].running_mean, atol=0.5)
    assert torch.allclose(state.model[4].running_mean, model[4].running_mean + 3)


@pytest.fixture
def accuracy(trained: tuple[nn.Module, Splits]) -> tuple[AccuracyEvaluator, State, Splits]:
    return evaluator(trained, MemoryBudget())


def evaluator(
    trained: tuple[nn.Module, Splits], memory: MemoryBudget
) -> tuple[AccuracyEvaluator, State, Splits]:
    model, splits = trained
    groups, _ = find_groups(model, splits.calibration.batches[0][0][:2])
    state = first_state(model, groups, splits.calibration, repair=False, memory=memory)
    before = CLASSIFICATION.measure(model, splits.selection, 0.5)
    options = Options(max_drop=BUDGET_POINTS, confidence=0.5)
    return AccuracyEvaluator(before, splits.selection, options, state), state, splits


def without(state: State, group: int, units: int) -> State:
    chosen = [torch.arange(units if i == group else 0) for i in range(len(state.groups))]
    return state.without(chosen)


@pytest.mark.parametrize("total_bytes", [0, 80_000, 10**7])
def test_a_drop_is_that_of_the_whole_network(trained, total_bytes):
    """Steps from either group, and back from hopeless ones, which are run on some images only."""
    found, state, splits = evaluator(trained, MemoryBudget(total_bytes))
    before = CLASSIFICATION.measure(state.model, splits.selection, 0.5)
    limit, seen = BUDGET_POINTS + REFIT_POINTS, []
    for group, units in [(1, 1), (1, 5), (0, 1), (1, 6), (1, 1), (0, 6), (1, 2)]:
        after = without(state, group, units)
        drop = found.drop(after)
        plain = CLASSIFICATION.evaluate_drop(
            before, after.running.folded_model, splits.selection, 0.5, limit
        )
        assert drop == plain
        seen.append(drop.images)
        if drop.points <= BUDGET_POINTS and units == 1:
            state = after
    assert min(seen) < max(seen) == splits.selection.images


def test_layers_before_the_first_change_do_not_run(accuracy, images_seen):
    found, state, splits = accuracy
    later = without(state, 1, 2)
    first, everything = without(later, 0, 2), splits.selection.images
    for after, images in ((state, everything), (later, 0), (first, everything)):
        _, seen = images_seen(after.running.folded_model[0], lambda after=after: found.drop(after))
        assert seen == images


def test_images_that_a_hopeless_network_was_spared_are_not_taken_from_the_one_before(accuracy):
    found, state, splits = accuracy
    found.drop(state)
    hopeless = without(state, 0, 6)
    assert found.drop(hopeless).images < splits.selection.images
    found._limit = 100.0
    before = CLASSIFICATION.measure(state.model, splits.selection, 0.5)
    after = without(hopeless, 1, 1)
    assert found.drop(after) == CLASSIFICATION.evaluate_drop(
        before, after.running.folded_model, splits.selection, 0.5, 100.0
    )


def test_a_score_of_the_users_own_gets_the_network_as_it_is(trained):
    """It may copy it, say, which a wrapped one does not allow."""
    model, splits = trained
    task = Task(CLASSIFICATION.loss, lambda n, batches: CLASSIFICATION.score(deepcopy(n), batches))
    groups, _ = find_groups(model, splits.calibration.batches[0][0][:2])
    state = first_state(model, groups, splits.calibration, repair=False, task=task)
    before = task.measure(model, splits.selection, 0.5)
    found = AccuracyEvaluator(before, splits.selection, Options(confidence=0.5), state)
    assert found.drop(without(state, 1, 0)).points == 0
