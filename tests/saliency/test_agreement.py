"""The agreement of orders, against slow, obvious computations; over all units and by layer."""

from __future__ import annotations

import itertools
import math

import pytest
import torch

from slimnet.saliency.agreement import (
    Reference,
    kendall,
    lowest,
    metric_agreement,
    shared_lowest,
    spearman,
)

LAYERS = {"a": torch.arange(0, 12), "b": torch.arange(12, 30), "lonely": torch.tensor([30])}


@pytest.fixture
def reference():
    values = torch.randn(31, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    return Reference(values, LAYERS)


def test_overall_by_layer_and_their_mean(reference):
    scores = reference.values.clone()
    scores[:12] *= -1  # layer a the wrong way round
    found = metric_agreement("any", scores, reference, 2.5)
    assert found.overall.spearman == spearman(scores, reference.values)
    assert found.overall.kendall == kendall(scores, reference.values)
    assert found.layers["a"].spearman == pytest.approx(-1)
    assert found.layers["b"].kendall == pytest.approx(1)
    assert found.layers["lonely"].spearman is None  # and is not in the mean
    assert found.layers_mean.spearman == pytest.approx(0)
    assert found.layers_mean.kendall == pytest.approx(0)
    assert (found.metric, found.seconds) == ("any", 2.5)


def test_the_oracles_own_order_agrees(reference):
    found = metric_agreement("oracle", 3 * reference.values, reference, 0)
    assert found.overall.spearman == pytest.approx(1)
    assert found.lowest_shared_percent == 100
    assert reference.k == 3


def test_one_unit_is_compared_at_least():
    assert Reference(torch.rand(4), {"a": torch.arange(4)}).k == 1


def test_a_metric_without_an_order_agrees_with_nothing():
    alike = Reference(torch.arange(5.0), {"a": torch.arange(5)})
    found = metric_agreement("flat", torch.ones(5), alike, 0)
    assert (found.overall.spearman, found.overall.kendall, found.layers_mean.kendall) == (None,) * 3
    assert found.lowest_shared_percent == pytest.approx(20)


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
        assert spearman(first, second) == pytest.approx(slow_spearman(a, b), abs=1e-12)
        assert kendall(first, second) == pytest.approx(slow_kendall(a, b), abs=1e-12)


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
