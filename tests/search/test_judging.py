"""Judging states on the selection images from the first layer on that is another."""

from __future__ import annotations

from copy import deepcopy

import pytest
import torch
from torch import nn

from slimnet.groups import find_groups
from slimnet.measure import CLASSIFICATION, Task
from slimnet.records import Splits
from slimnet.recover import kept
from slimnet.search.judging import Judging
from slimnet.search.recovery import RESOLVE_POINTS
from slimnet.search.state import State, first_state
from slimnet.search.trial import trace_state
from slimnet.settings import Settings

BUDGET_POINTS = 5.0


@pytest.fixture
def judging(trained: tuple[nn.Module, Splits]) -> tuple[Judging, State, Splits]:
    model, splits = trained
    groups, _ = find_groups(model, splits.calibration.batches[0][0][:2])
    state = first_state(model, groups, splits.calibration, repair=False)
    before = CLASSIFICATION.measure(model, splits.selection, 0.5)
    settings = Settings(max_drop=BUDGET_POINTS, confidence=0.5)
    calls, _ = trace_state(state, splits.calibration.batches)
    return Judging(before, splits.selection, settings, groups, calls), state, splits


def without(state: State, group: int, units: int) -> State:
    chosen = [torch.arange(units if i == group else 0) for i in range(len(state.groups))]
    return state.without(chosen)


@pytest.mark.parametrize("elements", [0, 5000, 10**6])
def test_a_drop_is_that_of_the_whole_network(judging, monkeypatch, elements):
    """Steps from either group, back from hopeless ones, which are judged on some images only."""
    monkeypatch.setattr(kept, "MOST_ELEMENTS", elements)
    found, state, splits = judging
    before = CLASSIFICATION.measure(state.model, splits.selection, 0.5)
    limit, seen = BUDGET_POINTS + RESOLVE_POINTS, []
    for group, units in [(1, 1), (1, 5), (0, 1), (1, 6), (1, 1), (0, 6), (1, 2)]:
        after = without(state, group, units)
        drop = found.drop(after)
        plain = CLASSIFICATION.judge(before, after.running, splits.selection, 0.5, limit)
        assert drop == plain
        seen.append(drop.images)
        if drop.points <= BUDGET_POINTS and units == 1:
            state = after
    assert min(seen) < max(seen) == splits.selection.images


def test_layers_before_the_first_change_do_not_run(judging, images_seen):
    found, state, splits = judging
    later = without(state, 1, 2)
    first, everything = without(later, 0, 2), splits.selection.images
    for after, images in ((state, everything), (later, 0), (first, everything)):
        _, seen = images_seen(after.running[0], lambda after=after: found.drop(after))
        assert seen == images


def test_images_that_a_hopeless_network_was_spared_are_not_taken_from_the_one_before(judging):
    found, state, splits = judging
    found.drop(state)
    hopeless = without(state, 0, 6)
    assert found.drop(hopeless).images < splits.selection.images
    found._limit = 100.0
    before = CLASSIFICATION.measure(state.model, splits.selection, 0.5)
    after = without(hopeless, 1, 1)
    assert found.drop(after) == CLASSIFICATION.judge(
        before, after.running, splits.selection, 0.5, 100.0
    )


def test_a_score_of_the_users_own_gets_the_network_as_it_is(trained):
    """It may copy it, say, which a wrapped one does not allow."""
    model, splits = trained
    task = Task(CLASSIFICATION.loss, lambda n, batches: CLASSIFICATION.score(deepcopy(n), batches))
    groups, _ = find_groups(model, splits.calibration.batches[0][0][:2])
    state = first_state(model, groups, splits.calibration, repair=False, task=task)
    before = task.measure(model, splits.selection, 0.5)
    calls, _ = trace_state(state, splits.calibration.batches)
    found = Judging(before, splits.selection, Settings(confidence=0.5), groups, calls)
    assert found.drop(without(state, 1, 0)).points == 0
