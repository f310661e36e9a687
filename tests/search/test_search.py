"""Proposals, the oracle and the budget."""

from __future__ import annotations

import copy
import dataclasses

import pytest
import torch
from torch import nn

from slimnet.groups import find_groups
from slimnet.measure import measure_quality, paired_drop
from slimnet.search import search
from slimnet.search.image_sets import images_used
from slimnet.search.proposals import propose_sets
from slimnet.settings import Settings


@pytest.fixture
def found(trained):
    model, splits = trained
    example = splits.calibration.batches[0][0][:2]
    return model, splits, find_groups(model, example)[0]


def flat(groups, proposal):
    starts = [sum(g.units for g in groups[:i]) for i in range(len(groups))]
    return [start + u for start, units in zip(starts, proposal.units, strict=True)
            for u in units.tolist()]  # fmt: skip


def test_metrics_propose_in_turn_each_its_lowest_not_yet_chosen(found):
    _, _, groups = found
    a = torch.arange(16).double()
    b = torch.tensor([0, 9, 1, 8, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7]).double()
    proposals = propose_sets(groups, {"a": a, "b": b}, candidates=5, channels=1)
    assert [(p.metric, flat(groups, p)) for p in proposals] == [
        ("a", [0]), ("b", [2]), ("a", [1]), ("b", [4]), ("a", [3]),
    ]  # fmt: skip


def test_sets_are_distinct_and_never_empty_a_group(found):
    _, _, groups = found
    score = torch.arange(16).double()
    proposals = propose_sets(groups, {"a": score, "b": score}, candidates=9, channels=8)
    assert [(p.metric, flat(groups, p)) for p in proposals] == [
        ("a", list(range(7))), ("b", list(range(8, 15))),
    ]  # fmt: skip
    last = [dataclasses.replace(g, original_units=g.original_units[:1]) for g in groups]
    assert propose_sets(last, {"a": score[:2]}, candidates=4, channels=1) == []


def test_search_removes_what_it_says_and_stays_within_the_budget(found):
    model, splits, groups = found
    before = copy.deepcopy(model.state_dict())
    settings = Settings(max_drop=10, confidence=0.5, step=1, oracle_k=8)
    seen = []
    trajectory, slim = search(model, groups, splits, settings, seen.append)
    assert list(trajectory.steps) == seen
    assert trajectory.kept_steps >= 1
    for step in trajectory.steps:
        chosen = step.candidates[step.chosen]
        raced = [c for c in step.candidates if c.images == chosen.images]
        assert chosen.sensitivity == min(c.sensitivity for c in raced)
        assert step.channels_removed == 1
    drop = paired_drop(
        measure_quality(model, splits.selection), measure_quality(slim, splits.selection), 0.5
    )
    assert drop.points <= 10
    assert drop.slim_percent == trajectory.steps[trajectory.kept_steps - 1].drop.slim_percent
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())


def test_a_step_that_breaks_the_budget_is_halved_down_to_one(found):
    model, splits, groups = found
    settings = Settings(max_drop=0, confidence=0.5, step=8, oracle_k=8)
    trajectory, _slim = search(model, groups, splits, settings)
    last = trajectory.steps[-1]
    assert last.channels_removed == 1 or "last channel" in trajectory.stopped_because
    assert trajectory.kept_steps == sum(s.within_budget for s in trajectory.steps)


def test_same_seed_same_plan(found):
    model, splits, groups = found
    settings = Settings(max_drop=10, confidence=0.5)
    plans = [search(model, groups, splits, settings)[0].plan for _ in range(2)]
    assert plans[0] == plans[1]


def test_a_budget_of_nothing_removes_only_what_is_free(trained):
    model, splits = trained
    model = copy.deepcopy(model)
    with torch.no_grad():  # channels 2 and 5 of the first layer are dead
        model[0].weight[[2, 5]] = 0
        model[0].bias[[2, 5]] = -1
        model[3].weight[:, [2, 5]] = 0
    groups, _ = find_groups(model, splits.calibration.batches[0][0][:2])
    settings = Settings(max_drop=0, confidence=0.5, step=1, oracle_k=16)
    trajectory, _slim = search(model, groups, splits, settings)
    assert {2, 5} <= set(trajectory.plan["0"]["out"])


def test_too_few_images_for_any_proof_ends_before_it_begins(found):
    model, splits, groups = found
    trajectory, _slim = search(model, groups, splits, Settings(max_drop=1, confidence=0.95))
    assert trajectory.steps == ()
    assert trajectory.plan == {}
    assert "60 selection images" in trajectory.stopped_because


def test_no_groups_says_so(found):
    model, splits, _ = found
    assert "no layer" in search(model, [], splits, Settings())[0].stopped_because


def test_single_linear_network_is_left_whole(trained):
    _, splits = trained
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 4)).eval()
    groups, frozen = find_groups(model, splits.calibration.batches[0][0][:2])
    assert groups == []
    assert frozen[0].reason == "it makes the network's output"


@pytest.mark.parametrize(("repair", "epochs"), [(True, 0), (False, 0), (False, 1), (True, 1)])
def test_only_what_is_repaired_or_trained_uses_more_images_than_the_oracle(trained, repair, epochs):
    settings = Settings(oracle_images=100, repair=repair, finetune_epochs=epochs)
    used = images_used(trained[0], torch.rand(2, 1, 8, 8), 9000, settings)
    assert used == (100, 9000 if repair or epochs else 100, 4096 if repair else 100)
