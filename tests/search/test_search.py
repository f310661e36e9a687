"""Whole searches: what they remove, when they end, and that they stay within the budget."""

from __future__ import annotations

import copy
import dataclasses

import pytest
import torch
from torch import nn

from slimnet.execution.removed import NoChannels
from slimnet.execution.replay import Replay
from slimnet.execution.size import count_conv_weights
from slimnet.groups.branches import find_branches
from slimnet.groups.cut import apply_plan, slim_copy
from slimnet.groups.find import find_groups
from slimnet.groups.prove import prove_slim
from slimnet.options import Options
from slimnet.records import FINE_TUNING, REFIT
from slimnet.records.measured import Drop
from slimnet.search import objective
from slimnet.search.recovery import EvaluatedState, Recovery
from slimnet.search.search import search
from slimnet.tasks.drop import measure_quality, paired_drop


def test_search_removes_what_it_says_and_stays_within_the_budget(found):
    model, splits, groups = found
    before = copy.deepcopy(model.state_dict())
    options = Options(max_drop=10, confidence=0.5, step=1, oracle_k=8)
    seen = []
    trajectory, slim = search(model, groups, splits, options, seen.append)
    assert list(trajectory.steps) == seen
    assert trajectory.kept_steps >= 1
    for step in trajectory.steps:
        (number,) = step.chosen
        chosen = step.candidates[number]
        assert chosen.images == max(c.images for c in step.candidates)
        assert step.channels_removed == 1
    drop = paired_drop(
        measure_quality(model, splits.selection), measure_quality(slim, splits.selection), 0.5
    )
    assert drop.points <= 10
    assert drop.slim_percent == trajectory.steps[trajectory.kept_steps - 1].drop.slim_percent
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())


def test_sets_that_break_the_budget_are_halved_and_single_channels_tried_further(found, only_fits):
    model, splits, groups = found
    only_fits(lambda state: not state.plan)
    options = Options(max_drop=5, confidence=0.5, step=8, oracle_k=8)
    trajectory, slim = search(model, groups, splits, options)
    assert [(s.channels_removed, s.taken_back) for s in trajectory.steps] == [
        (8, True), (4, True), (2, True), *[(1, False)] * 9,
    ]  # fmt: skip
    assert (trajectory.kept_steps, trajectory.plan) == (0, {})
    assert "none of the 8 after it" in trajectory.stopped_because
    assert count_conv_weights(slim) == count_conv_weights(model)


def test_a_search_ends_where_no_candidate_has_a_finite_loss(found, monkeypatch):
    def differences(self, run, model, trials):
        return [torch.full_like(run(), torch.inf) for _ in trials]

    monkeypatch.setattr(Replay, "differences", differences)
    model, splits, groups = found
    trajectory, _ = search(model, groups, splits, Options(max_drop=5, confidence=0.5))
    assert trajectory.steps == ()
    assert (
        "every remaining candidate makes the loss or the outputs NaN or infinite"
        in trajectory.stopped_because
    )


def test_same_seed_same_plan(found):
    model, splits, groups = found
    options = Options(max_drop=10, confidence=0.5)
    plans = [search(model, groups, splits, options)[0].plan for _ in range(2)]
    assert plans[0] == plans[1]


def test_a_budget_of_nothing_removes_only_what_is_free(trained):
    model, splits = trained
    model = copy.deepcopy(model)
    with torch.no_grad():  # channels 2 and 5 of the first layer are dead
        model[0].weight[[2, 5]] = 0
        model[0].bias[[2, 5]] = -1
        model[3].weight[:, [2, 5]] = 0
    groups, _ = find_groups(model, splits.calibration.batches[0][0][:2])
    options = Options(max_drop=0, confidence=0.5, step=1, oracle_k=16)
    trajectory, _slim = search(model, groups, splits, options)
    assert {2, 5} <= set(trajectory.plan["0"]["out"])


def test_no_groups_says_so(found):
    model, splits, _ = found
    assert "no layer" in search(model, [], splits, Options())[0].stopped_because


def test_single_linear_network_is_left_whole(trained):
    _, splits = trained
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 4)).eval()
    groups, frozen = find_groups(model, splits.calibration.batches[0][0][:2])
    assert groups == []
    assert frozen[0].reason == "it makes the network's output"


@pytest.mark.parametrize("objective", ["params", "macs", "latency"])
def test_search_for_each_objective_stays_within_the_budget(trained, objective):
    model, splits = trained
    groups, _ = find_groups(model, splits.calibration.batches[0][0][:2])
    options = Options(max_drop=10, confidence=0.5, oracle_k=4, objective=objective)
    trajectory, slim = search(
        model, groups, splits, options, time_layers=lambda network: {"0": 1.0, "3": 2.0, "": 0.1}
    )
    kept = [s for s in trajectory.steps if not s.taken_back][: trajectory.kept_steps]
    assert all(s.drop.points <= 10 for s in kept if s.within_budget)
    if trajectory.kept_steps:
        assert count_conv_weights(slim) < count_conv_weights(model)


def test_no_repair_leaves_the_kept_weights_as_they_were(trained):
    model, splits = trained
    groups, _ = find_groups(model, splits.calibration.batches[0][0][:2])
    options = Options(max_drop=10, confidence=0.5, step=1, oracle_k=4, repair=False)
    trajectory, slim = search(model, groups, splits, options)
    expected = slim_copy(model, trajectory.plan).state_dict()
    assert all(torch.equal(v, expected[k]) for k, v in slim.state_dict().items())
    repaired, other = search(model, groups, splits, Options(max_drop=10, confidence=0.5, step=1))
    same = slim_copy(model, repaired.plan).state_dict()
    assert any(not torch.equal(v, same[k]) for k, v in other.state_dict().items())


@pytest.mark.parametrize(("paying", "removes"), [((2, 4, 6, 8), True), ((64,), False)])
def test_the_search_hands_its_prediction_over(trained, monkeypatch, paying, removes):
    monkeypatch.setattr(objective, "measure_paying_widths", lambda *_: paying)
    monkeypatch.setattr(objective, "narrow_widths", lambda widths: (widths, widths))
    model, splits = trained
    groups, _ = find_groups(model, splits.calibration.batches[0][0][:2])
    options = Options(max_drop=30, confidence=0.5, oracle_k=4, objective="latency")

    def time_layers(network):
        return {"0": float(network[0].out_channels), "3": float(network[3].out_channels), "": 0.1}

    trajectory, _ = search(model, groups, splits, options, time_layers=time_layers)
    assert bool(trajectory.kept_steps) == removes
    if removes:
        assert trajectory.predicted.original_ms == 16.1
        assert trajectory.predicted.slim_ms < 16.1
    else:
        assert trajectory.predicted is None


def test_fine_tuning_removes_no_less_than_without_and_is_recorded(found):
    model, splits, groups = found
    before = copy.deepcopy(model.state_dict())
    changes = Options(max_drop=0, confidence=0.5, objective="params", step=3, repair=False)
    without, _ = search(model, groups, splits, changes)
    tuned = dataclasses.replace(changes, finetune_epochs=8, finetune_every=2, augment=False)
    trajectory, slim = search(model, groups, splits, tuned)
    assert removed(trajectory) >= removed(without)
    assert any(FINE_TUNING in step.recovered_by for step in trajectory.steps)
    assert trajectory.fine_tunings
    assert not without.fine_tunings
    example = splits.calibration.batches[0][0][:2]
    prove_slim(model, slim, trajectory.plan, example)
    quality = [measure_quality(network, splits.selection) for network in (model, slim)]
    assert paired_drop(*quality, 0.5).points <= 0
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())


def removed(trajectory):
    return trajectory.steps[trajectory.kept_steps - 1].parameters_removed_percent


def test_the_plan_is_that_of_the_steps_not_taken_back(found):
    model, splits, groups = found
    trajectory, _ = search(model, groups, splits, Options(max_drop=5, confidence=0.5, step=1))
    planned = sum(len(sides.get("out", ())) for name, sides in trajectory.plan.items()
                  if isinstance(model.get_submodule(name), nn.Conv2d))  # fmt: skip
    kept = [s for s in trajectory.steps[: trajectory.kept_steps] if not s.taken_back]
    assert planned == sum(step.channels_removed for step in kept)


def test_in_rounds_the_plan_is_that_of_the_steps_not_taken_back(found):
    """Choices from one table take the place of each other; those of the next one come on top."""
    model, splits, groups = found
    options = Options(max_drop=20, confidence=0.5, objective="params")
    trajectory, slim = search(model, groups, splits, options)
    assert trajectory.standing_steps
    gone = {group.name: set() for group in groups}
    for step in trajectory.standing_steps:
        for number in step.chosen:
            for name, units in step.candidates[number].channels.items():
                assert not gone[name] & set(units)
                gone[name] |= set(units)
    planned = {name: set(trajectory.plan.get(name, {}).get("out", ())) for name in gone}
    assert planned == gone
    assert trajectory.standing_steps[-1].number == trajectory.kept_steps
    example = splits.calibration.batches[0][0][:2]
    prove_slim(model, slim, trajectory.plan, example)


class Blocks(nn.Module):
    """Two residual blocks; the second one adds nothing."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(1, 8, 3, padding=1)
        self.a = nn.ModuleList([nn.Conv2d(8, 8, 3, padding=1), nn.Conv2d(8, 8, 3, padding=1)])
        self.b = nn.ModuleList([nn.Conv2d(8, 8, 3, padding=1), nn.Conv2d(8, 8, 3, padding=1)])
        self.head = nn.Linear(8, 4)

    def forward(self, x):
        x = self.stem(x).relu()
        for first, second in (self.a, self.b):
            x = (x + second(first(x).relu())).relu()
        return self.head(x.amax((2, 3)))


@pytest.mark.parametrize("depth", ["on", "off"])
def test_a_block_that_adds_nothing_goes_whole(trained, depth):
    _, splits = trained
    torch.manual_seed(0)
    model = Blocks()
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    for _ in range(8):
        for x, y in splits.calibration.batches:
            optimizer.zero_grad()
            nn.functional.cross_entropy(model(x), y).backward()
            optimizer.step()
    with torch.no_grad():
        model.b[1].weight.zero_()
        model.b[1].bias.zero_()
    model.eval()
    example = splits.calibration.batches[0][0][:2]
    groups, _ = find_groups(model, example)
    options = Options(max_drop=3, confidence=0.5, objective="macs", depth=depth, max_ratio=0.5)
    branches = find_branches(model, groups, example)[0] if options.branches_may_go else []
    trajectory, slim = search(model, groups, splits, options, branches=branches)
    assert isinstance(slim.b[0], NoChannels) == (depth == "on")
    prove_slim(model, slim, trajectory.plan, example)
    fresh = apply_plan(Blocks(), trajectory.plan)
    fresh.load_state_dict(slim.state_dict())
    assert torch.equal(fresh.eval()(example), slim(example))


def test_a_search_goes_on_after_a_recovery_which_is_recorded_at_its_step(found, monkeypatch):
    model, splits, groups = found
    recovered = []

    def after_step(self, state, number, *, last=False):
        points = 4.0 if number < 3 or recovered else 9.0
        return EvaluatedState(state, drop_of(points))

    def at_the_end(self, best, number):
        recovered.append(number)
        return EvaluatedState(best.state, drop_of(3.0), (REFIT,))

    monkeypatch.setattr(Recovery, "after_step", after_step)
    monkeypatch.setattr(Recovery, "at_the_end", at_the_end)
    options = Options(max_drop=5, confidence=0.5, step=1, oracle_k=4)
    trajectory, _ = search(model, groups, splits, options)
    assert recovered[0] == 2
    assert trajectory.steps[1].recovered_by == (REFIT,)
    over = trajectory.steps[2:11]
    assert all(step.taken_back and step.drop.points == 9 for step in over)
    assert trajectory.kept_steps == len(trajectory.steps) > 11
    assert trajectory.finished_by == (REFIT,)


def drop_of(points):
    return Drop(90, 90 - points, points, points, points, 0.5, 100)
