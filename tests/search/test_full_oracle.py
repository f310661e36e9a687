"""The full oracle against networks that were masked or slimmed one unit at a time."""

from __future__ import annotations

import copy
from dataclasses import replace

import pytest
import torch
from torch.nn import functional

from slimnet.execution.running import MemoryBudget, RunningNetwork
from slimnet.groups.cut import mask
from slimnet.groups.find import find_groups
from slimnet.groups.group import plan_for
from slimnet.repair.repair import gather_inverse_grams
from slimnet.search.comparison import FullOracle
from slimnet.search.state import State, first_state
from slimnet.tasks.classification import mean_loss
from slimnet.tasks.task import Task


@pytest.fixture
def found(trained):
    model, splits = trained
    example = splits.calibration.batches[0][0][:2]
    return model, splits.calibration, find_groups(model, example)[0]


def every_unit(groups):
    return [torch.arange(group.units) for group in groups]


def none_but(groups, number, unit):
    units = [torch.empty(0, dtype=torch.int64)] * len(groups)
    units[number] = torch.tensor([unit])
    return units


def removed_one_by_one(state, batches):
    """The change of the loss of networks that lack one unit, by slimming them."""
    loss = mean_loss(state.model, batches)
    return [
        mean_loss(state.without(none_but(state.groups, number, unit)).model, batches) - loss
        for number, group in enumerate(state.groups)
        for unit in range(group.units)
    ]


@pytest.mark.parametrize("repair", [False, True])
@pytest.mark.parametrize("memory", [MemoryBudget(0), MemoryBudget()])  # 0: one trial at a time
def test_each_change_is_that_of_a_network_without_the_unit(found, repair, memory):
    model, calibration, groups = found
    before = copy.deepcopy(model.state_dict())
    state = first_state(model, groups, calibration, repair=repair, memory=memory)
    told = []
    removals = FullOracle(state, calibration, seed=0).measure(every_unit(groups), told.append)
    assert removals.nats.tolist() == pytest.approx(
        removed_one_by_one(state, calibration.batches), abs=1e-5
    )
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())
    assert [event.done for event in told] == sorted(event.done for event in told)
    assert (told[-1].done, told[-1].units) == (len(removals.nats), len(removals.nats))


def test_some_units_are_the_same_ones_of_all(found):
    model, calibration, groups = found
    oracle = FullOracle(State(RunningNetwork(model), groups, {}, {}), calibration, seed=0)
    whole = oracle.measure(every_unit(groups), lambda _: None).nats
    some = [torch.tensor([1, 5]), torch.tensor([], dtype=torch.int64)]
    assert oracle.measure(some, lambda _: None).nats.tolist() == whole[[1, 5]].tolist()


def test_the_halves_are_different_images_that_make_the_whole(found):
    model, calibration, groups = found
    oracle = FullOracle(State(RunningNetwork(model), groups, {}, {}), calibration, seed=0)
    removals = oracle.measure(every_unit(groups), lambda _: None)
    many = torch.stack([half.sum(1) for half in oracle._halves()]).sum(0)
    assert float(many.sum()) == calibration.images
    assert 40 < many[0] < 80  # of 120
    together = (removals.halves * many[:, None]).sum(0) / many.sum()
    assert torch.allclose(together, removals.nats)
    assert not torch.allclose(removals.halves[0], removals.halves[1])


def test_one_half_is_measured_on_its_images_alone(found):
    model, calibration, groups = found
    oracle = FullOracle(State(RunningNetwork(model), groups, {}, {}), calibration, seed=0)
    removals = oracle.measure(every_unit(groups), lambda _: None)
    chosen = [half[0].bool() for half in oracle._halves()]
    part = [(x[c], y[c]) for (x, y), c in zip(calibration.batches, chosen, strict=True)]
    masked = copy.deepcopy(model)
    mask(masked, plan_for(groups[:1], [torch.tensor([2])]))
    change = mean_loss(masked, part) - mean_loss(model, part)
    assert float(removals.halves[0, 2]) == pytest.approx(change, abs=1e-6)


def test_a_task_that_knows_only_batches_is_halved_by_batches(found):
    model, calibration, groups = found
    task = Task(lambda m, b: functional.cross_entropy(m(b[0]), b[1]), lambda m, b: 50.0)
    state = State(RunningNetwork(model), groups, {}, {}, task=task)
    oracle = FullOracle(state, calibration, seed=0)
    assert [half[0].unique().tolist() for half in oracle._halves()] == [[1], [0]] * 4
    removals = oracle.measure(every_unit(groups), lambda _: None)
    plain = State(RunningNetwork(model), groups, {}, {})
    wanted = removed_one_by_one(plain, calibration.batches)
    assert removals.nats.tolist() == pytest.approx(wanted, abs=1e-5)


def test_a_loss_that_is_no_number_counts_as_the_highest(found):
    model, calibration, groups = found

    def loss(network, batch):
        value = functional.cross_entropy(network(batch[0]), batch[1])
        return value if network[3].weight[:, 2].abs().max() > 0 else value * torch.nan

    state = State(RunningNetwork(model), groups, {}, {}, task=Task(loss, lambda m, b: 50.0))
    removals = FullOracle(state, calibration, seed=0).measure(every_unit(groups), lambda _: None)
    assert torch.nonzero(~removals.nats.isfinite()).flatten().tolist() == [2]
    assert removals.nats[2] == torch.inf
    assert not removals.halves.isnan().any()


def test_trials_are_repaired_where_the_state_has_inverse_gram_matrices(found):
    model, calibration, groups = found
    state = State(RunningNetwork(model), groups, {}, {})
    repaired = replace(
        state, inverse_grams=gather_inverse_grams(model, groups, calibration.batches)
    )
    plain, better = (
        FullOracle(s, calibration, seed=0).measure(every_unit(groups), lambda _: None).nats
        for s in (state, repaired)
    )
    assert better.mean() < plain.mean()
