"""Correlations of orders against slow, obvious computations, and SciPy where it is there."""

from __future__ import annotations

import itertools
import math

import pytest
import torch

from slimnet.measure import rank_correlation
from slimnet.measure.rank_correlation import (
    average_ranks,
    chunks,
    kendall,
    lowest,
    shared_lowest,
    spearman,
    spearman_interval,
)


def pairs_of_values(units=40, tied=True):
    for seed in range(8):
        generator = torch.Generator().manual_seed(seed)
        values = torch.randn(2, units, generator=generator, dtype=torch.float64)
        values[1] += values[0] * seed / 4
        yield (values * 2).round() if tied else values


def slow_ranks(values):
    below = [sum(other < value for other in values) for value in values]
    equal = [sum(other == value for other in values) for value in values]
    return [b + (e + 1) / 2 for b, e in zip(below, equal, strict=True)]


def slow_spearman(first, second):
    a, b = (slow_ranks(side) for side in (first, second))
    middle = (len(a) + 1) / 2
    product = sum((x - middle) * (y - middle) for x, y in zip(a, b, strict=True))
    return product / math.sqrt(
        sum((x - middle) ** 2 for x in a) * sum((y - middle) ** 2 for y in b)
    )


def slow_kendall(first, second):
    sign = [(x > y) - (x < y) for x, y in itertools.combinations(first, 2)]
    other = [(x > y) - (x < y) for x, y in itertools.combinations(second, 2)]
    agreeing = sum(x * y for x, y in zip(sign, other, strict=True))
    return agreeing / math.sqrt(sum(map(abs, sign)) * sum(map(abs, other)))


@pytest.mark.parametrize("tied", [False, True])
def test_correlations_are_those_of_the_definition(tied):
    for first, second in pairs_of_values(tied=tied):
        a, b = first.tolist(), second.tolist()
        assert average_ranks(first).tolist() == slow_ranks(a)
        assert spearman(first, second) == pytest.approx(slow_spearman(a, b), abs=1e-12)
        assert kendall(first, second) == pytest.approx(slow_kendall(a, b), abs=1e-12)


def test_correlations_are_those_of_scipy():
    stats = pytest.importorskip("scipy.stats")
    for first, second in pairs_of_values(units=333):
        assert spearman(first, second) == pytest.approx(stats.spearmanr(first, second)[0])
        assert kendall(first, second) == pytest.approx(stats.kendalltau(first, second)[0])


def test_same_opposite_and_infinite():
    values = torch.tensor([1.0, 5.0, 2.0, torch.inf, torch.inf])
    assert spearman(values, values) == pytest.approx(1)
    assert kendall(values, values) == pytest.approx(1)
    assert spearman(values, -values) == pytest.approx(-1)
    assert kendall(values, -values) == pytest.approx(-1)


@pytest.mark.parametrize("values", [[], [3.0], [2.0, 2.0, 2.0]])
def test_what_has_no_order_has_no_correlation(values):
    values, other = torch.tensor(values), torch.arange(len(values)).double()
    assert spearman(values, other) is None
    assert kendall(other, values) is None


def test_shared_lowest_is_the_mean_over_all_ways_to_break_ties():
    first = torch.tensor([0.0, 1, 1, 1, 2, 3])
    second = torch.tensor([5.0, 0, 1, 4, 2, 3])
    assert lowest(second, 2).tolist() == [0, 1, 1, 0, 0, 0]
    ways = [{0, 1, 2}, {0, 1, 3}, {0, 2, 3}]  # the three lowest of first
    wanted = sum(len(way & {1, 2, 4}) for way in ways) / 3 / 3
    assert shared_lowest(first, second, 3) == pytest.approx(wanted)
    assert shared_lowest(second, second, 4) == 1


def test_the_interval_is_that_of_drawing_units_one_by_one(monkeypatch):
    monkeypatch.setattr(rank_correlation, "MOST_ELEMENTS", 30 * 70)  # several chunks
    generator = torch.Generator().manual_seed(0)
    first, second = next(iter(pairs_of_values(units=30)))
    layer = torch.arange(30) // 12
    drawn = []
    for _ in range(2000):
        own = [torch.nonzero(layer == number).flatten() for number in range(3)]
        units = torch.cat([o[torch.randint(len(o), (len(o),), generator=generator)] for o in own])
        drawn.append(spearman(first[units], second[units]))
    wanted = torch.tensor(drawn).quantile(torch.tensor([0.025, 0.975]))
    found = spearman_interval(first, second, layer, seed=1)
    assert found == pytest.approx(wanted.tolist(), abs=0.05)
    assert found == spearman_interval(first, second, layer, seed=1)
    assert found != spearman_interval(first, second, layer, seed=2)


def test_drawing_keeps_to_the_layers():
    # one unit a layer: nothing else can be drawn, so every draw is the same
    first, second = next(iter(pairs_of_values(units=9, tied=False)))
    low, high = spearman_interval(first, second, torch.arange(9), seed=0)
    assert low == pytest.approx(high)
    assert low == pytest.approx(spearman(first, second))


def test_no_interval_where_there_is_no_order():
    assert spearman_interval(torch.ones(5), torch.arange(5.0), torch.zeros(5).long(), 0) is None


def test_chunks_bound_the_memory():
    assert sum(chunks(1000, 10**6)) == 1000
    assert max(chunks(1000, 10**6)) * 10**6 <= rank_correlation.MOST_ELEMENTS
    assert chunks(1000, 7) == [1000]
