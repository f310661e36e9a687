"""Reconstruction errors against least squares by hand, and against what the network really does."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from slimnet.execution.states import replaced
from slimnet.groups.cut import masked
from slimnet.groups.find import find_groups
from slimnet.groups.group import plan_for
from slimnet.repair import repair as inverse_grams
from slimnet.repair.removal_errors import RemovalErrors, reconstruction_errors
from slimnet.repair.repair import gather_inverse_grams, repaired_weights


def least_squares_error(weight, gram, gone):
    """min over v with zeros at ``gone`` of (w − v)ᵀ H (w − v), row by row."""
    kept = [i for i in range(len(gram)) if i not in gone]
    total = 0.0
    for row in weight:
        w = torch.cat([row, row.new_zeros(len(gram) - len(row))])  # the constant weighs nothing
        v = torch.zeros_like(w)
        v[kept] = torch.linalg.solve(gram[kept][:, kept], (gram @ w)[kept])
        total += float((w - v) @ gram @ (w - v))
    return total


@pytest.mark.parametrize("constant", [0, 1])
@pytest.mark.parametrize("kernel", [1, 4])
def test_error_is_the_least_squares_error(kernel, constant):
    generator = torch.Generator().manual_seed(0)
    weight = torch.randn(2, 3, 5 * kernel, generator=generator, dtype=torch.float64)
    rows = torch.randn(2, 60, 5 * kernel + constant, generator=generator, dtype=torch.float64)
    gram = rows.transpose(1, 2) @ rows / 60
    columns = torch.arange(5 * kernel).view(5, kernel)
    found = reconstruction_errors(weight, torch.linalg.inv(gram), columns)
    expected = [
        sum(least_squares_error(weight[g], gram[g], block) for g in range(2))
        for block in columns.tolist()
    ]
    assert found.tolist() == pytest.approx(expected)


def output_change(model, images, consumer, plan, known):
    """Mean squared change of a consumer's output, summed over its channels, inputs as they were."""
    kept = {}

    def keep(_, inputs, output):
        kept["inputs"], kept["output"] = inputs[0].clone(), output.clone()

    handle = model.get_submodule(consumer).register_forward_hook(keep)
    model(images)
    handle.remove()
    only = {consumer: {"in": plan[consumer]["in"]}}
    repaired = repaired_weights(model, only, known)
    with masked(model, only), replaced(model, repaired):
        after = model.get_submodule(consumer)(kept["inputs"])
    axis = 1 if after.ndim == 4 else -1
    return float((after - kept["output"]).square().sum(axis).mean())


@torch.no_grad()
def test_error_is_how_far_the_repaired_consumer_is_off(residual, monkeypatch):
    """Every unit of every group: several inputs in one unit (flatten), grouped convolutions."""
    monkeypatch.setattr(inverse_grams, "RIDGE", 1e-10)
    model = residual.double()
    images = torch.randn(200, 3, 8, 8, generator=torch.Generator().manual_seed(2)).double()
    groups, _ = find_groups(model, images[:4], layers="all")
    known = gather_inverse_grams(model, groups, [(images, torch.zeros(200))])
    errors = RemovalErrors(model, groups, known).alone
    assert {g: set(e) for g, e in errors.items()} == {
        "stem": {"inner", "wide"}, "inner": {"outer"}, "wide": {"grouped"},
        "grouped": {"hidden"}, "hidden": {"head"},
    }  # fmt: skip
    for group in groups:
        for unit in range(group.units):
            plan = plan_for([group], [torch.tensor([unit])])
            for consumer, found in errors[group.name].items():
                change = output_change(model, images, consumer, plan, known)
                assert found[unit].item() == pytest.approx(change, rel=1e-4, abs=1e-8)


def test_consumers_without_an_inverse_are_left_out(residual, images):
    groups, _ = find_groups(residual, images, layers="all")
    batches = [(images, torch.zeros(6, dtype=torch.int64))]
    known = gather_inverse_grams(residual, groups, batches)
    del known["inner"], known["head"]
    errors = RemovalErrors(residual, groups, known).alone
    assert set(errors["stem"]) == {"wide"}
    assert "hidden" not in errors
    assert RemovalErrors(residual, groups, {}).alone == {}


def test_dead_inputs_cost_nothing_and_the_network_stays_as_it_was(images):
    model = nn.Sequential(
        nn.Conv2d(3, 4, 1), nn.ReLU(), nn.Conv2d(4, 5, 3), nn.Flatten(), nn.Linear(180, 4)
    ).eval()
    with torch.no_grad():
        model[0].weight[1] = 0
        model[0].bias[1] = 0
    before = {k: v.clone() for k, v in model.state_dict().items()}
    groups, _ = find_groups(model, images)
    known = gather_inverse_grams(model, groups, [(images, torch.zeros(6, dtype=torch.int64))])
    error = RemovalErrors(model, groups, known).alone["0"]["2"]
    # what is left is the ridge's price of the weights themselves
    weight = model[2].weight.detach().double()
    ridge = 1 / torch.linalg.eigvalsh(known["2"].inverse[0]).max()
    assert error[1] == pytest.approx(float(ridge * weight[:, 1].square().sum()), rel=1e-6)
    assert error[1] < error[[0, 2, 3]].min()
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())
