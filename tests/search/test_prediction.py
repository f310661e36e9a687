"""What the search says the networks take, from its table of layer times."""

from __future__ import annotations

import pytest
import torch

from slimnet.groups import find_groups, plan_for, slim_copy
from slimnet.records import PredictedLatency
from slimnet.search import objective, search
from slimnet.search.journal import Journal
from slimnet.search.latency import LatencyTable
from slimnet.search.objective import choose_objective
from slimnet.settings import Settings


@pytest.fixture
def halves(residual, images):
    """The network with half of its units, and with a quarter."""
    groups, _ = find_groups(residual, images, layers="all")
    plans = [plan_for(groups, [torch.arange(g.units * n // 4) for g in groups]) for n in (2, 3)]
    return [slim_copy(residual, plan) for plan in plans]


def test_the_table_predicts_and_counts_its_corrections(residual, halves):
    times = {"inner": 2.0, "depthwise": 1.0, "": 0.5}
    table = LatencyTable(lambda network: dict(times), residual)
    assert table.prediction(residual) == PredictedLatency(3.5, 3.5, 0)
    # inner: half of its inputs and half of its outputs; depthwise: half of its channels
    assert table.prediction(halves[0]) == PredictedLatency(3.5, 0.5 + 2.0 / 4 + 1.0 / 2, 0)
    times.update(inner=1.5)
    table.refresh(halves[0])
    assert table.prediction(halves[0]) == PredictedLatency(3.5, 3.0, 1)


def test_only_an_objective_that_counts_time_predicts(trained, monkeypatch):
    monkeypatch.setattr(objective, "measure_paying_widths", lambda *_: (4, 8))
    model, splits = trained
    batches = splits.calibration.batches
    groups, _ = find_groups(model, batches[0][0][:2])
    for name, expected in (("latency", PredictedLatency(3.1, 3.1, 0)), ("macs", None)):
        made = choose_objective(
            model, groups, batches, Settings(objective=name),
            lambda network: {"0": 1.0, "3": 2.0, "": 0.1}, Journal(),
        )  # fmt: skip
        assert made.prediction(model) == expected


@pytest.mark.parametrize(("paying", "removes"), [((2, 4, 6, 8), True), ((64,), False)])
def test_the_search_hands_its_prediction_over(trained, monkeypatch, paying, removes):
    monkeypatch.setattr(objective, "measure_paying_widths", lambda *_: paying)
    monkeypatch.setattr(objective, "narrow_widths", lambda widths: (widths, widths))
    model, splits = trained
    groups, _ = find_groups(model, splits.calibration.batches[0][0][:2])
    settings = Settings(max_drop=30, confidence=0.5, oracle_k=4, objective="latency")

    def time_layers(network):
        return {"0": float(network[0].out_channels), "3": float(network[3].out_channels), "": 0.1}

    trajectory, _ = search(model, groups, splits, settings, time_layers=time_layers)
    assert bool(trajectory.kept_steps) == removes
    if removes:
        assert trajectory.predicted.original_ms == 16.1
        assert trajectory.predicted.slim_ms < 16.1
    else:
        assert trajectory.predicted is None
