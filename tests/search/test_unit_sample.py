"""Units drawn at random: each with the same chance, and from every group its share."""

from __future__ import annotations

import pytest
import torch

from slimnet.groups.group import Group
from slimnet.search.comparison import places_among_all, places_by_group, sample_units


def groups_of(*units):
    return [Group(f"g{number}", (), (), torch.arange(many)) for number, many in enumerate(units)]


@pytest.mark.parametrize("sample", [None, 30, 99])
def test_all_units_where_no_fewer_are_asked_for(sample):
    found = sample_units(groups_of(10, 20), sample, seed=0)
    assert [units.tolist() for units in found] == [list(range(10)), list(range(20))]


@pytest.mark.parametrize("sample", [2, 7, 15, 59])
def test_every_group_gets_its_share(sample):
    sizes = (10, 20, 30)
    for seed in range(20):
        found = sample_units(groups_of(*sizes), sample, seed)
        assert sum(map(len, found)) == sample
        for units, size in zip(found, sizes, strict=True):
            assert abs(len(units) - size * sample / 60) < 1
            assert len(set(units.tolist())) == len(units)
            assert units.tolist() == sorted(units.tolist())
            assert all(0 <= unit < size for unit in units.tolist())


def test_every_unit_has_the_same_chance_and_the_seed_decides():
    drawn = torch.zeros(6)
    for seed in range(1500):
        first, second = sample_units(groups_of(2, 4), 2, seed)
        drawn[first] += 1
        drawn[2 + second] += 1
    assert drawn.tolist() == pytest.approx([500] * 6, abs=75)
    draws = [[u.tolist() for u in sample_units(groups_of(40), 9, seed)] for seed in (3, 3, 4)]
    assert draws[0] == draws[1] != draws[2]


def test_places_of_units():
    groups = groups_of(4, 3, 2)
    units = [torch.tensor([1, 3]), torch.tensor([], dtype=torch.int64), torch.tensor([0])]
    assert places_among_all(groups, units).tolist() == [1, 3, 7]
    found = {name: own.tolist() for name, own in places_by_group(groups, units).items()}
    assert found == {"g0": [0, 1], "g2": [2]}
