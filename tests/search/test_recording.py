"""What glances leave of the hardest images: the race goes on from there, and decides the same."""

from __future__ import annotations

import pytest
import torch

from slimnet.groups import find_groups
from slimnet.recover import kept
from slimnet.search.glance import Glances
from slimnet.search.layout import Layout, lay_out
from slimnet.search.oracle import Oracle
from slimnet.search.proposals import propose_sets
from slimnet.search.ranking import Ranker, errors_of, rank
from slimnet.search.state import State

METRICS = ["mean_activation", "taylor_first_order"]
SIZE = 8


@pytest.fixture
def found(trained):
    """A state, images, what may go, the loss of each image, and the glances at it."""
    model, splits = trained
    groups, _ = find_groups(model, splits.calibration.batches[0][0][:2])
    state = State(model, groups, {}, {})
    split = lay_out(splits.calibration, layout=Layout(images=SIZE))
    ranking = rank(state, split.batches, METRICS)
    proposals = propose_sets(groups, ranking.scores, candidates=8, channels=1)
    return state, split, proposals, ranking


def glances_at(state, split, ranking, oracle):
    ranker = Ranker(state, METRICS, errors_of(state))
    return Glances(ranker, split.batches, ranking.known, oracle.recording)


@pytest.mark.parametrize(("elements", "kept_images"), [(0, 0), (5000, SIZE), (10**6, 10**6)])
def test_a_race_decides_the_same_after_a_glance(
    found, monkeypatch, images_seen, elements, kept_images
):
    monkeypatch.setattr(kept, "MOST_ELEMENTS", elements)
    state, split, proposals, ranking = found
    savings = [1.0] * len(proposals)
    plain, glanced = Oracle(state, split), Oracle(state, split)
    first = state.running[0]
    expected, alone = images_seen(
        first, lambda: plain.measure(state, proposals, ranking.losses, savings)
    )
    losses = glances_at(state, split, ranking, glanced).look().losses
    assert 0 < len(glanced.recording.order) < split.images
    got, after = images_seen(first, lambda: glanced.measure(state, proposals, losses, savings))
    assert got[1] == expected[1]
    for one, other in zip(got[0], expected[0], strict=True):
        assert one.images == other.images
        assert one.nats == pytest.approx(other.nats, abs=1e-6)
    assert alone - after == min(alone, kept_images, len(glanced.recording.order))


def test_the_first_glance_alone_says_in_which_order_the_race_runs(found):
    """A race may have begun by the time of the second."""
    state, split, _, ranking = found
    oracle = Oracle(state, split)
    glances = glances_at(state, split, ranking, oracle)
    glances.look()
    order = oracle.recording.order
    glances.look()
    assert torch.equal(oracle.recording.order, order)


def test_after_the_race_the_order_alone_is_left(found):
    state, split, proposals, ranking = found
    oracle = Oracle(state, split)
    losses = glances_at(state, split, ranking, oracle).look().losses
    savings = [1.0] * len(proposals)
    expected = oracle.measure(state, proposals, losses, savings)
    order = oracle.recording.order
    oracle.recording.free_memory()
    assert not oracle.recording.outputs(0)
    assert torch.equal(oracle.recording.order, order)
    oracle._changes.clear()
    assert oracle.measure(state, proposals, losses, savings) == expected


def test_another_state_has_a_recording_of_its_own(found):
    state, split, proposals, ranking = found
    oracle = Oracle(state, split)
    glances_at(state, split, ranking, oracle).look()
    after = state.without(proposals[0].units)
    oracle.begin(after)
    assert not len(oracle.recording.order)
    assert not oracle.recording.outputs(0)
    ranking = rank(after, split.batches, METRICS)
    proposals = propose_sets(after.groups, ranking.scores, candidates=8, channels=1)
    savings = [1.0] * len(proposals)
    expected = Oracle(after, split).measure(after, proposals, ranking.losses, savings)
    assert oracle.measure(after, proposals, ranking.losses, savings) == expected
