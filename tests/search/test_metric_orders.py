"""Scores of each metric alone are those of all metrics together."""

from __future__ import annotations

import pytest
import torch

from slimnet.groups import find_groups
from slimnet.measure import Task, mean_loss
from slimnet.recover import gather_moments
from slimnet.saliency import GROUP_METRICS, METRICS
from slimnet.search import metric_orders
from slimnet.search.metric_orders import order_by_each
from slimnet.search.ranking import rank
from slimnet.search.state import State
from slimnet.settings import Settings


@pytest.fixture
def found(trained):
    model, splits = trained
    groups, _ = find_groups(model, splits.calibration.batches[0][0][:2])
    return State(model, groups, {}, {}), splits.calibration


def test_every_metric_scores_as_in_the_search(found):
    state, images = found
    orders, with_moments = order_by_each(state, images, images, Settings(repair=False))
    names = (*METRICS, *GROUP_METRICS)
    moments = gather_moments(state.model, state.groups, images.batches)
    together = rank(State(state.model, state.groups, {}, moments), images.batches, names).scores
    assert tuple(orders.scores) == tuple(orders.seconds) == names
    assert orders.left_out == {}
    for name in names:
        assert torch.allclose(orders.scores[name], together[name])
    assert with_moments.moments
    assert state.moments == {}


def test_only_what_is_named_and_no_moments_without_a_use(found):
    state, images = found
    names = ("transitive_taylor_first_order", "l1_weight")
    orders, after = order_by_each(state, images, images, Settings(repair=False, metrics=names))
    assert tuple(orders.scores) == names
    assert after.moments == {}
    assert order_by_each(state, images, images, Settings(metrics=names))[1].moments


def test_metrics_of_weights_need_no_pass(found, monkeypatch):
    state, images = found
    passes = []
    monkeypatch.setattr(
        metric_orders, "rank", lambda s, b, m: passes.append(len(b)) or rank(s, b, m)
    )
    order_by_each(state, images, images, Settings(metrics=("l1_weight", "mean_gradient")))
    assert passes == [1, len(images.batches)]


def test_what_is_not_at_hand_is_told(found):
    state, images = found
    task = Task(lambda m, b: mean_loss(m, [b]), lambda m, b: 50.0)
    names = ("mutual_information", "l1_weight", "transitive_reconstruction_error")
    blind = State(state.model, [], {}, {}, task=task)
    orders, _ = order_by_each(
        State(state.model, state.groups, {}, {}, task=task), images, images,
        Settings(repair=False, metrics=("mutual_information",)),
    )  # fmt: skip
    assert orders.scores == {}
    assert "classes" in orders.left_out["mutual_information"]
    assert metric_orders._missing(names[2], blind).startswith("no layer")
    assert metric_orders._missing(names[1], blind) == ""
