"""The path of a search: its states, from safe to aggressive, each as it would be shipped."""

from __future__ import annotations

import copy
from dataclasses import replace

import pytest
import torch
from torch import nn

from slimnet.execution import count_parameters
from slimnet.groups import apply_plan, find_groups
from slimnet.options import Options
from slimnet.records import Splits
from slimnet.search import EmptyPath, search, search_path, unchanged_state
from slimnet.tasks import CLASSIFICATION

OPTIONS = {"max_drop": 30, "objective": "params", "oracle_images": 60}


def path_of(trained: tuple[nn.Module, Splits], **changes):
    model, splits = trained
    groups, _ = find_groups(model, torch.zeros(2, 1, 8, 8))
    return search_path(model, groups, splits, Options(**OPTIONS | changes))


@pytest.mark.parametrize(
    "changes", [{}, {"step": 2, "objective": "channels", "max_drop": 60, "repair": False}]
)
def test_states_go_from_safe_to_aggressive_and_end_with_that_of_the_search(trained, changes):
    path = path_of(trained, **changes)
    states = list(path.states())
    sizes = [count_parameters(state.network) for state in states]
    assert len(states) > 1
    assert sizes == sorted(sizes, reverse=True)
    assert len(set(sizes)) == len(sizes)
    assert states[-1].trajectory.plan == path.last().trajectory.plan
    assert states[-1].drop.points <= (OPTIONS | changes)["max_drop"]


def test_every_state_is_its_plan_and_its_standing_steps(trained):
    path = path_of(trained)
    inputs = torch.randn(3, 1, 8, 8)
    states = list(path.states())
    made = {step.number for step in path.last().trajectory.steps}
    assert {state.step for state in states} <= made
    for state in states:
        assert {step.number for step in state.trajectory.steps} == made
        trajectory = state.trajectory
        again = apply_plan(copy.deepcopy(trained[0]), trajectory.plan)
        again.load_state_dict(state.network.state_dict(), strict=True)
        assert torch.equal(again.eval()(inputs), state.network.eval()(inputs))
        gone = {
            name: set(units)
            for step in trajectory.standing_steps
            for number in step.chosen
            for name, units in step.candidates[number].channels.items()
        }
        assert trajectory.standing_steps[-1].number == state.step
        for name in gone:
            units = [
                unit
                for step in trajectory.standing_steps
                for number in step.chosen
                for unit in step.candidates[number].channels.get(name, ())
            ]
            assert sorted(units) == list(trajectory.plan[name]["out"])


def test_a_search_without_its_path_ends_with_the_same_state(trained):
    model, splits = trained
    groups, _ = find_groups(model, torch.zeros(2, 1, 8, 8))
    trajectory, slim = search(model, groups, splits, Options(**OPTIONS))
    last = path_of(trained).last()
    assert trajectory.plan == last.trajectory.plan
    for one, other in zip(slim.parameters(), last.network.parameters(), strict=True):
        assert torch.equal(one, other)


def test_the_search_does_not_look_at_confirmation_images(trained):
    model, splits = trained

    class Unread:
        def __iter__(self):
            raise AssertionError("the search reads confirmation images")

    hidden = replace(splits, confirmation=replace(splits.test, batches=Unread()), test=None)
    groups, _ = find_groups(model, torch.zeros(2, 1, 8, 8))
    assert list(search_path(model, groups, hidden, Options(**OPTIONS)).states())


def test_nothing_is_searched_where_nothing_can_go_or_be_confirmed(trained):
    model, splits = trained
    groups, _ = find_groups(model, torch.zeros(2, 1, 8, 8))
    for some, impossible, words in (([], "", "no layer"), (groups, "too few", "too few")):
        path = search_path(model, some, splits, Options(**OPTIONS), impossible=impossible)
        assert isinstance(path, EmptyPath)
        assert not list(path.states())
        last = path.last()
        assert words in last.trajectory.stopped_because
        assert last.step == 0
        assert last.network is not model
        assert count_parameters(last.network) == count_parameters(model)


def test_the_original_can_stand_for_a_search_of_which_nothing_is_shipped(trained):
    path = path_of(trained)
    last = path.last()
    before = CLASSIFICATION.measure(trained[0], trained[1].selection, 0.5)
    drop = CLASSIFICATION.drop(before, before, 0.5)
    found = unchanged_state(trained[0], drop, "not confirmed", last.trajectory)
    assert found.step == 0
    assert not found.trajectory.standing_steps
    assert len(found.trajectory.steps) == len(last.trajectory.steps)
    assert found.trajectory.plan == {}
