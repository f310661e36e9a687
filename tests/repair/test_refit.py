"""Refitting: layers fitted anew to what the original network's layers put out."""

from __future__ import annotations

import copy
import sys

import pytest
import torch
from torch import nn

from slimnet.data.batches import single_images
from slimnet.execution.running import MemoryBudget
from slimnet.groups.cut import slim_copy
from slimnet.groups.find import find_groups
from slimnet.groups.group import plan_for
from slimnet.repair.refit import _fit, refit, ridge_regression
from slimnet.repair.repair import RIDGE
from slimnet.repair.teacher import TeacherOutputs
from slimnet.tasks.classification import mean_loss


def test_a_refit_lowers_the_loss_and_leaves_the_original_alone(trained):
    model, splits = trained
    batches = splits.calibration.batches
    groups, _ = find_groups(model, batches[0][0][:2])
    plan = plan_for(groups, [torch.arange(4), torch.arange(3)])
    slim = slim_copy(model, plan)
    before, loss = copy.deepcopy(model.state_dict()), mean_loss(slim, batches)
    assert refit(TeacherOutputs(model, batches), slim, plan) >= 1
    assert mean_loss(slim, batches) < loss
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())
    assert not any(m._forward_hooks for m in (*model.modules(), *slim.modules()))


def test_an_untouched_network_stays_as_it_is(trained):
    model, splits = trained
    same = copy.deepcopy(model)
    assert refit(TeacherOutputs(model, splits.calibration.batches), same, {}) == 0
    assert all(map(torch.equal, same.state_dict().values(), model.state_dict().values()))


def test_layers_before_all_that_has_changed_stay_as_they_are(trained, monkeypatch):
    model, splits = trained
    model, batches = copy.deepcopy(model), splits.calibration.batches
    model[5] = nn.Sequential(nn.ReLU(), nn.Conv2d(8, 6, 3, padding=1), nn.ReLU())
    model[8] = nn.Linear(24, 4)
    groups, _ = find_groups(model, batches[0][0][:2])
    assert [group.name for group in groups] == ["0", "3", "5.1"]
    fitted = []

    def fit(teacher, slim, layer, *given):
        fitted.append(layer.name)
        return _fit(teacher, slim, layer, *given)

    monkeypatch.setattr(sys.modules[refit.__module__], "_fit", fit)

    def plan_without(*units):
        return plan_for(groups, [torch.arange(many) for many in units])

    def again(plan_at_last_refit, *units, max_layers=None):
        fitted.clear()
        plan = plan_without(*units)
        slim = slim_copy(model, plan)
        refit(TeacherOutputs(model, batches), slim, plan, plan_at_last_refit, max_layers)
        return list(fitted)

    every = ["0", "3", "5.1", "8"]
    assert again(None, 2, 2, 1) == every
    assert again(None, 2, 2, 1, max_layers=2) == every[:2]
    assert again(plan_without(2, 2, 0), 2, 2, 1) == ["5.1", "8"]
    assert again(plan_without(2, 1, 1), 2, 2, 1) == every[1:], "3 itself has fewer outputs"
    assert again(plan_without(0, 2, 1), 2, 2, 1) == every
    assert again({}, 0, 0, 1) == ["5.1", "8"]
    assert again(plan_without(2, 2, 1), 2, 2, 1) == []


class Residual(nn.Module):
    """Two blocks; the second one's sum is of the first one's stream."""

    def __init__(self, *, norm: bool, in_place: bool) -> None:
        super().__init__()
        self.stem = nn.Conv2d(1, 6, 3, padding=1)
        self.first = nn.ModuleList([nn.Conv2d(6, 6, 3, padding=1), nn.Conv2d(6, 6, 3, padding=1)])
        self.second = nn.ModuleList([nn.Conv2d(6, 6, 3, padding=1), nn.Conv2d(6, 6, 3, padding=1)])
        self.norms = nn.ModuleList([nn.BatchNorm2d(6) if norm else nn.Identity() for _ in "12"])
        self.head = nn.Conv2d(6, 4, 1)
        self.in_place = in_place

    def forward(self, x):
        x = self.stem(x).relu()
        for block, norm in zip((self.first, self.second), self.norms, strict=True):
            y = norm(block[1](block[0](x).relu()))
            if self.in_place:
                y += x
                x = y.relu_()
            else:
                x = (x + y).relu()
        return self.head(x).mean((2, 3))


@pytest.mark.parametrize("norm", [True, False])
@pytest.mark.parametrize("in_place", [True, False])
def test_the_last_layer_of_a_block_aims_at_the_sum(trained, norm, in_place):
    """So it makes up for what the block before it has lost."""
    torch.manual_seed(0)
    model = Residual(norm=norm, in_place=in_place)
    for part in model.norms.children():
        if norm:
            part.running_mean.normal_()
            part.running_var.uniform_(0.5, 2)
    model.eval()
    batches = trained[1].calibration.batches
    teacher = TeacherOutputs(model, batches)
    assert teacher.sums == {
        "first.1": "norms.0" if norm else None, "second.1": "norms.1" if norm else None,
    }  # fmt: skip
    with torch.no_grad():
        wanted = model(batches[0][0])
    errors = {}
    for sums in (True, False):
        slim = copy.deepcopy(model)
        with torch.no_grad():
            slim.first[0].weight[:4].zero_()
            slim.first[0].bias[:4].zero_()
        teacher = TeacherOutputs(model, batches)
        if not sums:
            teacher.sums = {}
        refit(teacher, slim, {"first.1": {"out": ()}})
        with torch.no_grad():
            errors[sums] = float((slim(batches[0][0]) - wanted).square().mean())
    assert errors[True] < 0.9 * errors[False]


@pytest.mark.parametrize("every", [1, 10])
def test_the_images_held_out_are_of_the_classes_that_layers_are_fitted_on(every):
    """The classes may come in order, as from folders, or in turn."""
    labels = torch.arange(100) // every % 10
    fitting, held_out = map(list, single_images([(torch.zeros(100, 1), labels)]).hold_back(4))
    assert set(fitting[0][1].tolist()) == set(held_out[0][1].tolist()) == set(range(10))
    assert len(held_out[0][1]) == 25


def test_refitting_a_layer_whose_inputs_are_all_dead_is_harmless(trained):
    model, splits = trained
    model = copy.deepcopy(model)
    model[3] = nn.Conv2d(8, 8, 3, padding=1, bias=False)
    model[4] = nn.Identity()
    with torch.no_grad():
        model[0].weight.zero_()
        model[0].bias.fill_(-1)
    batches = splits.calibration.batches
    refit(TeacherOutputs(model, batches), copy.deepcopy(model), {"0": {"out": ()}})


@pytest.mark.parametrize("cached", [True, False])
def test_targets_are_the_originals_outputs_again_and_again(trained, cached):
    """Cached or run once more, they are the same."""
    model, splits = trained
    memory = MemoryBudget() if cached else MemoryBudget(0)
    aims = TeacherOutputs(model, splits.calibration.batches, memory=memory)
    first = list(aims.of("3"))
    aims.gather(["0", "3"])
    assert ("3" in aims._cached) == cached
    runs = []
    handle = model.register_forward_pre_hook(lambda *_: runs.append(1))
    second = list(aims.of("3"))
    handle.remove()
    assert bool(runs) != cached
    with torch.no_grad():
        for (batch, one), (_, other) in zip(first, second, strict=True):
            expected = model[:4](batch[0]).flatten(2)
            for target, again in zip(one, other, strict=True):
                maps = expected[target.images]
                rows = maps if target.positions is None else maps[:, :, target.positions]
                assert torch.equal(target.rows, again.rows)
                assert torch.equal(target.rows, rows.transpose(0, 1).flatten(1))


def test_a_layer_too_large_to_be_cached_takes_no_room_from_others(trained):
    model, splits = trained
    aims = TeacherOutputs(model, splits.calibration.batches)
    sizes = {
        name: sum(target.rows.nbytes for _, parts in aims.of(name) for target in parts)
        for name in ("0", "8")
    }
    assert sizes["0"] > sizes["8"]
    memory = MemoryBudget(4 * sizes["8"])
    assert memory.teacher_outputs == sizes["8"]
    aims = TeacherOutputs(model, splits.calibration.batches, memory=memory)
    aims.gather(["0", "8"])
    assert list(aims._cached) == ["8"]
    aims.gather(["0", "3", "8"])
    assert list(aims._cached) == ["8"]


@torch.no_grad()
def test_what_works_in_place_on_a_layers_output_changes_no_target(trained):
    model, splits = trained
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 8), nn.ReLU(inplace=True), nn.Linear(8, 4))
    aims = TeacherOutputs(model.eval(), splits.calibration.batches)
    aims.gather(["1", "3"])
    for batch, (target,) in aims.of("1"):
        assert torch.equal(target.rows, model[:2](batch[0]).T)


def slowly(matrix, x, teacher):
    """One row of weights after the other, the ridge as rows of its own."""
    result = torch.zeros_like(matrix)
    for group in range(len(matrix)):
        ridge = (RIDGE * x[group].square().sum(1).mean()).sqrt()
        left = torch.cat([x[group].T, ridge * torch.eye(x.shape[1], dtype=x.dtype)])
        for output in range(matrix.shape[1]):
            right = torch.cat([teacher[group, output], ridge * matrix[group, output]])
            result[group, output] = torch.linalg.lstsq(left, right[:, None]).solution[:, 0]
    return result


def test_ridge_regression_is_the_slow_obvious_solution():
    torch.manual_seed(0)
    outputs, columns, rows = 3, 5, 40
    matrix = torch.randn(2, outputs, columns, dtype=torch.float64)
    parts = torch.randn(2, 2, columns, rows, dtype=torch.float64)
    targets = torch.randn(2, 2, outputs, rows, dtype=torch.float64)
    before = matrix.clone()
    found = ridge_regression(matrix, zip(parts, targets, strict=True))
    assert torch.allclose(found, slowly(matrix, torch.cat([*parts], 2), torch.cat([*targets], 2)))
    assert torch.equal(matrix, before)


class Unread(nn.Module):
    """The second layer's output goes to the third, that one's to the fourth, and no further."""

    def __init__(self, channels):
        super().__init__()
        self.first, self.second = nn.Conv2d(channels, 6, 3), nn.Conv2d(6, 6, 3)
        self.third, self.fourth = nn.Conv2d(6, 6, 1), nn.Conv2d(6, 6, 1)
        self.last = nn.Linear(6, 4)

    def forward(self, x):
        x = self.first(x).relu()
        self.fourth(self.third(self.second(x).relu()))
        return self.last(x.mean((2, 3)))


def test_a_layer_that_nobody_reads_keeps_finite_weights(trained):
    batches = trained[1].calibration.batches
    model = Unread(batches[0][0].shape[1]).eval()
    plan = {"first": {"out": [1]}, "second": {"in": [1]}, "last": {"in": [1]}}
    slim = slim_copy(model, plan)
    before = copy.deepcopy(slim.state_dict())
    assert refit(TeacherOutputs(model, batches), slim, plan) == 5
    assert all(bool(value.isfinite().all()) for value in slim.parameters())
    assert not torch.equal(slim.last.weight, before["last.weight"])
