"""Backward elimination against the same done plainly: every repair anew, by least squares."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from slimnet.execution.running import RunningNetwork
from slimnet.groups.find import find_groups
from slimnet.repair import removal_errors
from slimnet.repair import removal_errors as elimination
from slimnet.repair import repair as inverse_grams
from slimnet.repair.removal_errors import RemovalErrors, consumers_of, joint_errors
from slimnet.repair.repair import gather_inverse_grams
from slimnet.search.evaluate import removal_errors_of
from slimnet.search.state import State


def least_squares_error(weight, gram, gone):
    """min over V with zeros at ``gone`` of tr((W − V) H (W − V)ᵀ), for one convolution group."""
    full = torch.cat([weight, weight.new_zeros(len(weight), len(gram) - weight.shape[1])], 1)
    kept = [i for i in range(len(gram)) if i not in set(gone)]
    change = full.clone()
    solved = torch.linalg.solve(gram[kept][:, kept], (full @ gram)[:, kept], left=False)
    change[:, kept] -= solved
    return float((change @ gram * change).sum())


def plainly(consumers, units):
    """Return the error of each unit with all before it, every set priced from nothing."""
    parts = [
        (consumer.weight[g], torch.linalg.inv(consumer.inverse[g]), consumer.columns)
        for consumer in consumers
        for g in range(len(consumer.weight))
    ]

    def error(gone):
        total = 0.0
        for weight, gram, columns in parts:
            taken = columns[list(gone)]
            total += least_squares_error(weight, gram, taken[taken >= 0].tolist())
        return total

    gone, errors = [], {}
    while len(gone) < units:
        left = [unit for unit in range(units) if unit not in gone]
        best = min(left, key=lambda unit: error([*gone, unit]))
        gone.append(best)
        errors[best] = error(gone)
    return [errors[unit] for unit in range(units)]


@pytest.fixture
def prepared(residual):
    """Groups with several consumers, grouped convolutions, and several inputs in one unit."""
    model = residual.double()
    images = torch.randn(200, 3, 8, 8, generator=torch.Generator().manual_seed(2)).double()
    groups, _ = find_groups(model, images[:4], layers="all")
    return model, groups, gather_inverse_grams(model, groups, [(images, torch.zeros(200))])


def test_every_unit_is_priced_with_all_that_go_before_it(prepared):
    model, groups, known = prepared
    before = copy.deepcopy(model.state_dict())
    found = RemovalErrors(model, groups, known).together
    assert set(found) == {group.name for group in groups}
    for group in groups:
        weights = {name: model.get_parameter(f"{name}.weight") for name in group.consumers}
        consumers = list(consumers_of(group, weights, known).values())
        assert found[group.name].tolist() == pytest.approx(plainly(consumers, group.units))
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())


def test_several_in_a_round_go_in_about_the_same_order(prepared, monkeypatch):
    """With shortlists of all units the order is exactly that of one at a time."""
    model, groups, known = prepared
    expected = RemovalErrors(model, groups, known).together
    monkeypatch.setattr(elimination, "MAX_ROUNDS", 2)
    monkeypatch.setattr(elimination, "SHORTLIST", 100)
    found = RemovalErrors(model, groups, known).together
    for name, errors in expected.items():
        assert found[name].tolist() == pytest.approx(errors.tolist()), name


def test_of_two_channels_that_say_the_same_one_stays(monkeypatch):
    """Each costs nothing alone, so that the plain error ranks both of them first."""
    monkeypatch.setattr(inverse_grams, "RIDGE", 1e-8)
    generator = torch.Generator().manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 6, 1), nn.ReLU(), nn.Conv2d(6, 4, 1)).eval()
    with torch.no_grad():
        model[0].weight.normal_(generator=generator)
        model[0].weight[4] = 2 * model[0].weight[1]
        model[0].bias.fill_(0.5)[4] = 1.0
        model[2].weight[:, [1, 4]] = 5.0  # much is lost when both go
    images = torch.randn(64, 3, 4, 4, generator=generator)
    groups, _ = find_groups(model, images[:2])
    found = RemovalErrors(model, groups, gather_inverse_grams(model, groups, [(images, None)]))
    assert sorted(torch.argsort(found.alone["0"]["2"])[:2].tolist()) == [1, 4]
    first, second = torch.argsort(found.together["0"])[:2].tolist()
    assert first in (1, 4)
    assert second not in (1, 4)


def test_groups_with_a_consumer_that_cannot_be_repaired_are_left_out(prepared):
    model, groups, known = prepared
    less = {name: one for name, one in known.items() if name != "wide"}
    found = RemovalErrors(model, groups, less)
    assert set(found.alone["stem"]) == {"inner"}
    assert "stem" not in found.together
    assert "inner" in found.together
    assert RemovalErrors(model, groups, {}).together == {}


def test_errors_are_found_again_only_where_something_changed(prepared, monkeypatch):
    model, groups, known = prepared
    state = State(RunningNetwork(model), groups, {}, known)
    first = removal_errors_of(state)
    assert first.together
    place = next(i for i, group in enumerate(groups) if group.name == "inner")
    gone = [torch.arange(2)[1:] if i == place else torch.arange(0) for i in range(len(groups))]
    after = state.without(gone)
    expected = removal_errors_of(after)
    asked = []
    monkeypatch.setattr(
        removal_errors, "joint_errors", lambda c, u: asked.append(u) or joint_errors(c, u)
    )
    found = removal_errors_of(after, first)
    for name, errors in expected.together.items():
        assert torch.equal(found.together[name], errors), name
        for consumer, alone in expected.alone[name].items():
            assert torch.equal(found.alone[name][consumer], alone), name
    touched = [g for g in groups if set(g.consumers) & {"inner", *groups[place].consumers}]
    assert 0 < len(touched) < len(groups)
    assert len(asked) - len(expected.together) == len(touched)
