"""Re-solving: layers fitted anew to what the original network's layers put out."""

from __future__ import annotations

import copy
import sys

import pytest
import torch
from torch import nn

from slimnet.groups import find_groups, plan_for, slim_copy
from slimnet.measure import mean_loss
from slimnet.recover import Targets, gather_moments, resolve, targets
from slimnet.recover.resolve import _solve
from slimnet.recover.targets import divide


def test_resolve_lowers_the_loss_and_leaves_the_original_alone(trained):
    model, splits = trained
    batches = splits.calibration.batches
    groups, _ = find_groups(model, batches[0][0][:2])
    moments = gather_moments(model, groups, batches)
    plan = plan_for(groups, [torch.arange(4), torch.arange(3)])
    slim = slim_copy(model, plan)
    before, loss = copy.deepcopy(model.state_dict()), mean_loss(slim, batches)
    assert resolve(Targets(model, batches), slim, plan, moments) >= 1
    assert mean_loss(slim, batches) < loss
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())
    assert not any(m._forward_hooks for m in (*model.modules(), *slim.modules()))


def test_resolving_an_untouched_network_changes_almost_nothing(trained):
    model, splits = trained
    batches = splits.calibration.batches
    groups, _ = find_groups(model, batches[0][0][:2])
    same = copy.deepcopy(model)
    resolve(Targets(model, batches), same, {}, gather_moments(model, groups, batches))
    inputs = batches[0][0]
    with torch.no_grad():
        assert torch.allclose(model(inputs), same(inputs), atol=1e-3)


def test_layers_before_all_that_has_changed_stay_as_they_are(trained, monkeypatch):
    model, splits = trained
    model, batches = copy.deepcopy(model), splits.calibration.batches
    model[5] = nn.Sequential(nn.ReLU(), nn.Conv2d(8, 6, 3, padding=1), nn.ReLU())
    model[8] = nn.Linear(24, 4)
    groups, _ = find_groups(model, batches[0][0][:2])
    assert [group.name for group in groups] == ["0", "3", "5.1"]
    moments = gather_moments(model, groups, batches)
    solved = []

    def solve(targets, slim, name, *given):
        solved.append(name)
        return _solve(targets, slim, name, *given)

    monkeypatch.setattr(sys.modules[resolve.__module__], "_solve", solve)

    def plan_without(*units):
        return plan_for(groups, [torch.arange(many) for many in units])

    def again(settled, *units):
        solved.clear()
        plan = plan_without(*units)
        resolve(Targets(model, batches), slim_copy(model, plan), plan, moments, settled)
        return solved

    every = ["3", "5.1", "8"]
    assert again(None, 2, 2, 1) == every
    assert again(plan_without(2, 2, 0), 2, 2, 1) == ["5.1", "8"]
    assert again(plan_without(2, 1, 1), 2, 2, 1) == every, "3 itself has fewer outputs"
    assert again(plan_without(0, 2, 1), 2, 2, 1) == every
    assert again({}, 0, 0, 1) == ["5.1", "8"]
    assert again(plan_without(2, 2, 1), 2, 2, 1) == []


@pytest.mark.parametrize("every", [1, 10])
def test_resolving_judges_on_the_classes_that_it_solves_on(every):
    """In class order, as folders are, or class by class in turn."""
    labels = torch.arange(100) // every % 10
    solving, judging = map(list, divide([(torch.zeros(100, 1), labels)]))
    assert set(solving[0][1].tolist()) == set(judging[0][1].tolist()) == set(range(10))
    assert len(judging[0][1]) == 25


def test_resolving_a_layer_whose_inputs_are_all_dead_is_harmless(trained):
    model, splits = trained
    model = copy.deepcopy(model)
    model[3] = nn.Conv2d(8, 8, 3, padding=1, bias=False)
    model[4] = nn.Identity()
    with torch.no_grad():
        model[0].weight.zero_()
        model[0].bias.fill_(-1)
    batches = splits.calibration.batches
    groups, _ = find_groups(model, batches[0][0][:2])
    moments = gather_moments(model, groups, batches)
    resolve(Targets(model, batches), copy.deepcopy(model), {}, moments)


@pytest.mark.parametrize("kept", [True, False])
def test_targets_are_the_originals_outputs_again_and_again(trained, monkeypatch, kept):
    """Kept in memory or run once more, they are the same; and they follow no other network."""
    model, splits = trained
    if not kept:
        monkeypatch.setattr(targets, "MOST_ELEMENTS", 0)
    aims = Targets(model, splits.calibration.batches)
    first = list(aims.of("3"))
    aims.gather(["0", "3"])
    assert ("3" in aims._kept) == kept
    runs = []
    handle = model.register_forward_pre_hook(lambda *_: runs.append(1))
    second = list(aims.of("3"))
    handle.remove()
    assert bool(runs) != kept
    with torch.no_grad():
        for (batch, one), (_, other) in zip(first, second, strict=True):
            expected = model[:4](batch[0]).flatten(2)
            for target, again in zip(one, other, strict=True):
                maps = expected[target.images]
                rows = maps if target.positions is None else maps[:, :, target.positions]
                assert torch.equal(target.rows, again.rows)
                assert torch.equal(target.rows, rows.transpose(0, 1).flatten(1))


def test_a_layer_too_large_to_be_kept_takes_no_room_from_others(trained, monkeypatch):
    model, splits = trained
    aims = Targets(model, splits.calibration.batches)
    sizes = {
        name: sum(target.rows.numel() for _, parts in aims.of(name) for target in parts)
        for name in ("0", "8")
    }
    assert sizes["0"] > sizes["8"]
    monkeypatch.setattr(targets, "MOST_ELEMENTS", sizes["8"])
    aims = Targets(model, splits.calibration.batches)
    aims.gather(["0", "8"])
    assert list(aims._kept) == ["8"]
    aims.gather(["0", "3", "8"])
    assert list(aims._kept) == ["8"]


@torch.no_grad()
def test_what_works_in_place_on_a_layers_output_changes_no_target(trained):
    model, splits = trained
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 8), nn.ReLU(inplace=True), nn.Linear(8, 4))
    aims = Targets(model.eval(), splits.calibration.batches)
    aims.gather(["1", "3"])
    for batch, (target,) in aims.of("1"):
        assert torch.equal(target.rows, model[:2](batch[0]).T)
