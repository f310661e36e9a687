"""Couplings: channels that go in pairs, and whole groups of a group norm."""

from __future__ import annotations

import pytest
import torch
from test_groups import Normed
from torch import nn

from slimnet.errors import InputError
from slimnet.groups.cut import slim_copy
from slimnet.groups.find import find_groups
from slimnet.groups.group import connected, plan_for
from slimnet.groups.prove import masked_slim_error


def test_whole_groups_of_a_group_norm_go(images):
    model = Normed(nn.GroupNorm(4, 8)).eval()
    groups, _ = find_groups(model, images)
    first = next(g for g in groups if g.name == "first")
    assert first.units == 4
    assert first.gates[0].module == "norm", "scores are of what the next layer reads"
    plan = plan_for([first], [torch.tensor([1, 2])])
    assert plan["norm"]["out"] == (2, 3, 4, 5)
    assert masked_slim_error(model, plan, images) < 1e-12
    norm = slim_copy(model, plan).norm
    assert (norm.num_groups, norm.num_channels, len(norm.weight)) == (2, 4, 4)
    with pytest.raises(InputError, match="normalised with others"):
        slim_copy(model, {"norm": {"out": (2, 3, 4)}})


def test_channels_at_the_same_place_of_two_halves_are_one_unit(images):
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(3, 12, 1), nn.GLU(1), nn.Conv2d(6, 5, 1), nn.Flatten(), nn.Linear(320, 4)
    ).eval()
    groups, _ = find_groups(model, images)
    halved = next(g for g in groups if g.name == "0")
    assert halved.units == 6
    assert plan_for([halved], [torch.tensor([1, 4])])["0"]["out"] == (1, 4, 7, 10)


def test_connected_numbers():
    found = connected(7, torch.tensor([5, 1, 3]), torch.tensor([3, 2, 0]))
    assert found.tolist() == [0, 1, 1, 0, 2, 0, 3]
