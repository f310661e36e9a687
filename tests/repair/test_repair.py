"""Repair and refitting against slow, obvious least squares; nothing but what is said changes."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn
from torch.nn import functional

from slimnet.execution.states import replaced, set_values
from slimnet.groups.cut import slim_copy
from slimnet.groups.find import find_groups
from slimnet.groups.group import Group, Member, plan_for, shrink_groups
from slimnet.repair.columns import Positions, output_rows, unfold
from slimnet.repair.repair import (
    RIDGE,
    gather_inverse_grams,
    removed_inputs,
    repaired_weights,
    shrink_inverse_grams,
)


@pytest.fixture
def prepared(residual, images):
    groups, _ = find_groups(residual, images, layers="all")
    labels = torch.tensor([0, 1, 2, 3, 0, 1])
    batches = [(images[:4], labels[:4]), (images[4:], labels[4:])]
    return residual, groups, batches, gather_inverse_grams(residual, groups, batches)


def inputs_of(model, name, images):
    seen = []
    handle = model.get_submodule(name).register_forward_pre_hook(lambda _, x: seen.append(x[0]))
    with torch.no_grad():
        model(images)
    handle.remove()
    return seen[0]


def least_squares(x, y, ridge):
    """min ||y - w x||² + ridge ||w - w₀||² has this normal equation for w₀ = 0 on ridge rows."""
    rows = x.shape[1]
    return torch.linalg.solve(x @ x.T / rows + ridge * torch.eye(len(x)), x @ y.T / rows).T


@pytest.mark.parametrize("name", ["inner", "outer", "wide", "hidden", "head"])
def test_repair_is_the_least_squares_solution(prepared, images, name):
    model, groups, batches, _ = prepared
    # in float64: a ridge of a hundredth lets rounding of the sums grow a hundredfold
    model, images = model.double(), images.double()
    inverse_grams = gather_inverse_grams(
        model, groups, [(inputs.double(), labels) for inputs, labels in batches]
    )
    units = [torch.arange(g.units)[: g.units // 3] for g in groups]
    plan = plan_for(groups, units)
    values = repaired_weights(model, plan, inverse_grams)
    layer = model.get_submodule(name)
    x = unfold(layer, inputs_of(model, name, images))[0].double()
    x = torch.cat([x, torch.ones_like(x[:1])])
    full = torch.cat([layer.weight.flatten(1), layer.bias[:, None]], 1).detach().double()
    kernel = layer.weight[0, 0].numel()
    gone = torch.zeros(len(x), dtype=torch.bool)
    for channel in plan[name]["in"]:
        gone[channel * kernel : (channel + 1) * kernel] = True
    # what the lost inputs contributed is fitted by the remaining ones
    ridge = RIDGE * float((x @ x.T / x.shape[1]).diagonal().mean())
    fitted = least_squares(x[~gone], full[:, gone] @ x[gone], ridge)
    expected = full[:, ~gone] + fitted
    got = torch.cat([values[f"{name}.weight"].flatten(1), values[f"{name}.bias"][:, None]], 1)
    assert torch.allclose(got[:, ~gone].double(), expected, atol=1e-5)
    assert torch.count_nonzero(got[:, gone]) == 0


def test_grouped_convolutions_are_repaired_group_by_group(prepared, images):
    model, groups, _, inverse_grams = prepared
    wide = next(i for i, g in enumerate(groups) if g.name == "wide")
    units = [torch.tensor([1, 4]) if i == wide else torch.tensor([], dtype=torch.int64)
             for i in range(len(groups))]  # fmt: skip
    plan = plan_for(groups, units)
    assert plan["grouped"]["in"] == (1, 4, 7, 10)
    values = repaired_weights(model, plan, inverse_grams)
    x = inputs_of(model, "grouped", images)
    masked = x.clone()
    masked[:, [1, 4, 7, 10]] = 0
    layer = model.grouped
    wanted = layer(x)
    plain = functional.mse_loss(layer(masked), wanted)
    repaired = functional.conv2d(
        masked, values["grouped.weight"], values["grouped.bias"], padding=1, groups=2
    )
    assert functional.mse_loss(repaired, wanted) < 0.9 * plain


def test_a_convolution_without_bias_repairs_its_norms_running_mean(trained):
    model, splits = trained
    batches = splits.calibration.batches
    groups, _ = find_groups(model, batches[0][0][:2])
    inverse_grams = gather_inverse_grams(model, groups, batches)
    assert inverse_grams["3"].bias == "4.running_mean"
    units = [torch.arange(3), torch.tensor([], dtype=torch.int64)]
    plan = plan_for(groups, units)
    values = repaired_weights(model, plan, inverse_grams)
    inputs = torch.cat([x for x, _ in batches])
    with torch.no_grad():
        wanted = model[4](model[3](model[:3](inputs)))
        masked = model[:3](inputs)
        masked[:, :3] = 0
        plain = functional.mse_loss(model[4](model[3](masked)), wanted)
        with replaced(model, values):
            repaired = functional.mse_loss(model[4](model[3](masked)), wanted)
            only_weight = {k: v for k, v in values.items() if "mean" not in k}
        with replaced(model, only_weight):
            without_mean = functional.mse_loss(model[4](model[3](masked)), wanted)
    assert repaired < plain
    assert repaired < without_mean


def test_two_steps_equal_one(prepared):
    model, groups, _, inverse_grams = prepared
    first = [torch.tensor([0]) for _ in groups]
    second = [torch.tensor([0, 2]) for _ in groups]
    once = plan_for(groups, second)
    # columns 0 and 2 at once, or 0 first and then 2 from the updated inverse
    together = repaired_weights(model, once, inverse_grams)
    step = plan_for(groups, first)
    stepped = copy.deepcopy(model)
    set_values(stepped, repaired_weights(model, step, inverse_grams))
    from slimnet.groups.cut import apply_plan
    from slimnet.groups.group import shrink_groups

    smaller = shrink_groups(groups, first)
    after = shrink_inverse_grams(inverse_grams, removed_inputs(model, step))
    apply_plan(stepped, step)
    rest = plan_for(smaller, [torch.tensor([1]) for _ in groups])
    twice = repaired_weights(stepped, rest, after)
    slim_once = copy.deepcopy(model)
    set_values(slim_once, together)
    slim_once = slim_copy(slim_once, once)
    set_values(stepped, twice)
    slim_twice = slim_copy(stepped, rest)
    for a, b in zip(slim_once.parameters(), slim_twice.parameters(), strict=True):
        assert torch.allclose(a, b, atol=1e-5)


def test_replaced_block_puts_every_value_back(prepared):
    model, groups, _, inverse_grams = prepared
    before = copy.deepcopy(model.state_dict())
    plan = plan_for(groups, [torch.tensor([0]) for _ in groups])
    with replaced(model, repaired_weights(model, plan, inverse_grams)):
        assert not torch.equal(model.inner.weight, before["inner.weight"])
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())


def test_dead_inputs_and_fewer_rows_than_columns_are_harmless(prepared, images):
    model, groups, _, _ = prepared
    model = copy.deepcopy(model)
    with torch.no_grad():
        model.inner.weight[2] = 0
        model.inner.bias[2] = -1
    inverse_grams = gather_inverse_grams(
        model, groups, [(images[:1], torch.zeros(1, dtype=torch.int64))]
    )
    plan = plan_for(groups, [torch.tensor([0, 2]) for _ in groups])
    values = repaired_weights(model, plan, inverse_grams)
    assert all(torch.isfinite(v).all() for v in values.values())


def test_linear_alone(images):
    model = nn.Sequential(nn.Flatten(), nn.Linear(192, 6), nn.ReLU(), nn.Linear(6, 4)).eval()
    groups, _ = find_groups(model, images)
    labels = torch.zeros(6, dtype=torch.int64)
    inverse_grams = gather_inverse_grams(model, groups, [(images, labels)])
    assert set(inverse_grams) == {"3"}
    assert inverse_grams["3"].inverse.shape == (1, 7, 7)


def test_slices_give_the_same_inverses(prepared, monkeypatch):
    from slimnet.repair import columns as module

    model, groups, batches, whole = prepared
    monkeypatch.setattr(module, "SLICE_ELEMENTS", 1)
    for name, sliced in gather_inverse_grams(model, groups, batches).items():
        difference = (sliced.inverse - whole[name].inverse).norm()
        assert difference <= 1e-3 * whole[name].inverse.norm()


def test_what_is_read_and_then_overwritten_counts_as_it_was_read():
    """Rows are summed many at once, by when the network may have used their memory again."""
    torch.manual_seed(0)

    class Overwriting(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.second = nn.Linear(4, 6), nn.Linear(6, 6, bias=False)

        def forward(self, x):
            hidden = self.first(x)
            y = self.second(hidden)
            hidden.mul_(2)
            return y + hidden

    model, inputs = Overwriting().eval(), torch.rand(8, 4)
    member = Member("second", "in", torch.arange(6), torch.arange(6), torch.arange(6), None)
    group = Group("first", (member,), (), torch.arange(6))
    batches = [(part, torch.zeros(4, dtype=torch.int64)) for part in inputs.split(4)]
    read = model.first(inputs).detach().double()
    gram = read.T @ read / len(read)
    expected = torch.linalg.inv(gram + RIDGE * gram.diagonal().mean() * torch.eye(6))
    found = gather_inverse_grams(model, [group], batches)["second"].inverse[0]
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    "shape",
    [
        {"kernel_size": 3, "padding": 1},
        {"kernel_size": (3, 2), "stride": 2, "dilation": 2, "groups": 2},
        {"kernel_size": 1},
        {"kernel_size": 3, "padding": 2, "padding_mode": "reflect"},
    ],
)
@torch.no_grad()
def test_chosen_columns_give_the_outputs_at_their_positions(shape):
    torch.manual_seed(0)
    layer, inputs = nn.Conv2d(4, 6, **shape), torch.randn(5, 4, 12, 11)
    output = layer(inputs)
    last = output.shape[2] * output.shape[3] - 1
    weight = layer.weight.reshape(layer.groups, -1, layer.weight[0].numel())
    for positions in (torch.tensor([3, 7, last]), None):
        columns = unfold(layer, inputs, positions)
        computed = (weight @ columns).flatten(0, 1) + layer.bias[:, None]
        assert torch.allclose(computed, output_rows(layer, output, positions), atol=1e-5)


def test_positions_are_enough_and_move_on():
    layer = nn.Conv2d(2, 3, 3, padding=1)
    output = torch.zeros(4, 3, 16, 16)
    assert Positions(4).choose(layer, output) is None
    assert Positions(100).choose(nn.Linear(2, 3), torch.zeros(4, 3)) is None
    positions = Positions(100)
    slices = [positions.choose(layer, output) for _ in range(60)]
    assert all(len(chosen.unique()) == -(-64 * 18 // 100) for chosen in slices)
    seen = torch.cat(slices)
    assert 0 <= seen.min() < 4 < 252 < seen.max() < 256
    assert len(seen.unique()) > 150


def test_gram_matrices_of_some_positions_are_near_those_of_all(residual):
    groups, _ = find_groups(residual, torch.randn(2, 3, 8, 8), layers="all")
    torch.manual_seed(0)
    batches = [(torch.randn(400, 3, 16, 16), torch.zeros(400, dtype=torch.int64))]
    every = gather_inverse_grams(residual, groups, batches)
    some = gather_inverse_grams(residual, groups, batches, 400)
    for name in ("inner", "outer", "grouped"):
        exact, near = torch.linalg.inv(every[name].inverse), torch.linalg.inv(some[name].inverse)
        assert 0 < (near - exact).norm() / exact.norm() < 0.1


def test_large_inverses_are_kept_in_float32_and_repair_as_well(prepared, monkeypatch):
    from slimnet.repair import repair as module

    model, groups, batches, exact = prepared
    monkeypatch.setattr(module, "LARGE_COLUMNS", 8)
    rounded = gather_inverse_grams(model, groups, batches)
    assert rounded["outer"].inverse.dtype == torch.float32
    now, later = [torch.tensor([1])] * len(groups), [torch.tensor([0])] * len(groups)
    plan = plan_for(groups, now)
    first, second = (
        shrink_inverse_grams(inverse_grams, removed_inputs(model, plan))
        for inverse_grams in (exact, rounded)
    )
    slim, left = slim_copy(model, plan), shrink_groups(groups, now)
    expected = repaired_weights(slim, plan_for(left, later), first)
    got = repaired_weights(slim, plan_for(left, later), second)
    for name, values in expected.items():
        assert torch.allclose(got[name], values, atol=1e-4 * float(values.detach().abs().max()))
