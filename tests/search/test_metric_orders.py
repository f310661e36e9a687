"""Scores of each metric alone are those of all metrics together."""

from __future__ import annotations

import pytest
import torch

from slimnet.execution.running import RunningNetwork
from slimnet.groups.find import find_groups
from slimnet.options import Options
from slimnet.repair.repair import gather_inverse_grams
from slimnet.saliency.metrics import GROUP_METRICS, METRICS
from slimnet.search import comparison as metric_orders
from slimnet.search.comparison import order_by_each
from slimnet.search.evaluate import rank
from slimnet.search.state import State
from slimnet.tasks.classification import mean_loss
from slimnet.tasks.task import Task


@pytest.fixture
def found(trained):
    model, splits = trained
    groups, _ = find_groups(model, splits.calibration.batches[0][0][:2])
    return State(RunningNetwork(model), groups, {}, {}), splits.calibration


def test_every_metric_scores_as_in_the_search(found):
    state, images = found
    orders, with_moments = order_by_each(state, images, images, Options(repair=False))
    names = (*METRICS, *GROUP_METRICS)
    inverse_grams = gather_inverse_grams(state.model, state.groups, images.batches)
    together = rank(
        State(RunningNetwork(state.model), state.groups, {}, inverse_grams), images.batches, names
    ).scores
    assert tuple(orders.scores) == tuple(orders.seconds) == names
    assert orders.left_out == {}
    for name in names:
        assert torch.allclose(orders.scores[name], together[name])
    assert with_moments.inverse_grams
    assert state.inverse_grams == {}


def test_only_what_is_named_and_no_moments_without_a_use(found):
    state, images = found
    names = ("transitive_taylor_first_order", "l1_weight")
    orders, after = order_by_each(state, images, images, Options(repair=False, metrics=names))
    assert tuple(orders.scores) == names
    assert after.inverse_grams == {}
    assert order_by_each(state, images, images, Options(metrics=names))[1].inverse_grams


def test_metrics_of_weights_need_no_pass(found, monkeypatch):
    state, images = found
    passes = []
    monkeypatch.setattr(
        metric_orders, "rank", lambda s, b, m: passes.append(len(b)) or rank(s, b, m)
    )
    order_by_each(state, images, images, Options(metrics=("l1_weight", "mean_gradient")))
    assert passes == [1, len(images.batches)]


def test_what_is_not_at_hand_is_told(found):
    state, images = found
    task = Task(lambda m, b: mean_loss(m, [b]), lambda m, b: 50.0)
    names = ("mutual_information", "l1_weight", "transitive_reconstruction_error")
    blind = State(RunningNetwork(state.model), [], {}, {}, task=task)
    orders, _ = order_by_each(
        State(RunningNetwork(state.model), state.groups, {}, {}, task=task), images, images,
        Options(repair=False, metrics=("mutual_information",)),
    )  # fmt: skip
    assert orders.scores == {}
    assert "class that the network gives" in orders.left_out["mutual_information"]
    assert metric_orders._missing(names[2], blind).startswith("no layer")
    assert metric_orders._missing(names[1], blind) == ""
