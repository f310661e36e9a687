"""The agreement of a metric with the oracle, over all units and by layer."""

from __future__ import annotations

import pytest
import torch

from slimnet.measure.agreement import Reference, metric_agreement, random_agreement
from slimnet.measure.rank_correlation import kendall, spearman

LAYERS = {"a": torch.arange(0, 12), "b": torch.arange(12, 30), "lonely": torch.tensor([30])}


@pytest.fixture
def reference():
    values = torch.randn(31, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    return Reference(values, LAYERS, seed=0)


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
    low, high = found.spearman_interval
    assert low < found.overall.spearman < high
    assert (found.metric, found.seconds) == ("any", 2.5)


def test_the_oracles_own_order_agrees(reference):
    found = metric_agreement("oracle", 3 * reference.values, reference, 0)
    assert found.overall.spearman == pytest.approx(1)
    assert found.lowest_shared_percent == 100
    assert reference.k == 3


def test_one_unit_is_compared_at_least():
    assert Reference(torch.rand(4), {"a": torch.arange(4)}, seed=0).k == 1


def test_random_orders_are_around_zero(reference):
    found = random_agreement(reference)
    assert found.spearman == pytest.approx(0, abs=0.02)
    # without ties the standard deviation is 1 / sqrt(n - 1)
    assert found.spearman_interval == pytest.approx([-1.96 / 30**0.5, 1.96 / 30**0.5], abs=0.05)
    deviation = (1 / 11 + 1 / 17) ** 0.5 / 2  # the mean of two layers
    wanted = [-1.96 * deviation, 1.96 * deviation]
    assert found.layers_spearman_interval == pytest.approx(wanted, abs=0.06)
    assert found.lowest_shared_percent == pytest.approx(100 * 3 / 31, abs=2)
    assert found.lowest_shared_percent_interval[0] == 0


def test_no_order_at_all():
    found = random_agreement(Reference(torch.ones(5), {"a": torch.arange(5)}, seed=0))
    assert (found.spearman, found.spearman_interval) == (None, None)
    assert found.lowest_shared_percent == pytest.approx(20)
    alike = Reference(torch.arange(5.0), {"a": torch.arange(5)}, seed=0)
    told = metric_agreement("flat", torch.ones(5), alike, 0)
    assert (told.overall.spearman, told.spearman_interval, told.layers_mean.kendall) == (None,) * 3
