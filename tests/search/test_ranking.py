"""Rankings without the gradients of easy images: the proposals are those of all of them."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from slimnet.groups import find_groups
from slimnet.saliency import Gathering, gather_statistics, score_units
from slimnet.search import ranking as ranking_file
from slimnet.search.layout import Layout, lay_out
from slimnet.search.proposals import propose_sets
from slimnet.search.ranking import Ranking, rank
from slimnet.search.state import State

METRICS = ["mean_activation", "mean_gradient", "taylor_first_order", "taylor_second_order"]


@pytest.fixture
def found(trained):
    model, splits = trained
    groups, _ = find_groups(model, splits.calibration.batches[0][0][:2])
    return State(model, groups, {}, {}), lay_out(splits.calibration, layout=Layout(images=8))


@pytest.fixture
def gradients(monkeypatch):
    """The batches that went backward."""
    run, many = Gathering.run, []

    def counted(self, batch, *, gradients=True):
        many.extend([batch] if gradients else [])
        return run(self, batch, gradients=gradients)

    monkeypatch.setattr(Gathering, "run", counted)
    return many


def proposing(state, candidates=4):
    return lambda scores: propose_sets(state.groups, scores, candidates=candidates, channels=1)


def keys(proposals):
    return {proposal.key for proposal in proposals}


def test_few_gradients_give_the_proposals_of_all(found, gradients, monkeypatch):
    state, calibration = found
    everything = rank(state, calibration.batches, METRICS)
    whole = len(gradients)
    gradients.clear()
    monkeypatch.setattr(ranking_file, "FIRST_SHARE", 0.05)
    propose = proposing(state)
    some = rank(state, calibration.batches, METRICS, everything.losses, propose)
    assert len(gradients) < whole
    assert some.settled(propose)
    assert keys(propose(some.scores)) == keys(propose(everything.scores))
    torch.testing.assert_close(some.losses, everything.losses)
    torch.testing.assert_close(some.scores["mean_activation"], everything.scores["mean_activation"])
    for metric in METRICS[1:]:
        lacking = everything.scores[metric] - some.scores[metric]
        assert lacking.max() > 0
        assert (lacking <= 1e-12 + some.lacks[metric] * some.scores[metric]).all()


def test_gradients_go_on_until_the_proposals_are_settled(found, gradients, monkeypatch):
    state, calibration = found
    everything = rank(state, calibration.batches, METRICS)
    whole = len(gradients)
    gradients.clear()
    monkeypatch.setattr(ranking_file, "SAFETY", 1e12)
    propose = proposing(state)
    some = rank(state, calibration.batches, METRICS, everything.losses, propose)
    assert len(gradients) == whole
    assert not some.lacks
    for metric in METRICS:
        torch.testing.assert_close(some.scores[metric], everything.scores[metric])


def test_a_ranking_is_settled_where_what_it_lacks_changes_no_proposal(found):
    state, _ = found
    units = sum(group.units for group in state.groups)
    scores = {"any": torch.arange(units, dtype=torch.float64) + 1}
    scores["any"][3:5] = torch.tensor([4.0, 4.1], dtype=torch.float64)
    losses = torch.ones(2)
    for candidates, lack, expected in (
        (4, 0.05, False),
        (4, 0.01, True),
        (3, 0.05, True),
        (5, 0.05, True),
    ):
        ranking = Ranking(scores, losses, {"any": lack})
        assert ranking.settled(proposing(state, candidates)) is expected
    assert Ranking(scores, losses).settled(proposing(state))


def test_doubts_name_what_may_come_and_what_may_go(found):
    state, _ = found
    units = sum(group.units for group in state.groups)
    scores = {"any": torch.arange(units, dtype=torch.float64) + 1}
    scores["any"][3:5] = torch.tensor([4.0, 4.1], dtype=torch.float64)
    exact = proposing(state, 5)(scores)
    others, doubtful = Ranking(scores, torch.ones(2), {"any": 0.05}).doubts(proposing(state))
    assert [other.key for other in others] == [exact[4].key]
    assert doubtful == {exact[3].key}
    lack = torch.zeros(units)
    lack[3] = 0.05
    one = Ranking(scores, torch.ones(2), {"any": lack})
    assert not one.settled(proposing(state)), "one that lacks is enough"
    assert Ranking(scores, torch.ones(2), {"any": lack.roll(5)}).settled(proposing(state))


def test_a_score_can_overtake_several(found):
    state, _ = found
    units = sum(group.units for group in state.groups)
    scores = {"any": torch.arange(units, dtype=torch.float64) + 1}
    scores["any"][3:7] = torch.tensor([4.0, 4.001, 4.002, 4.003], dtype=torch.float64)
    exact = proposing(state, 7)(scores)
    others, doubtful = Ranking(scores, torch.ones(2), {"any": 0.01}).doubts(proposing(state, 5))
    assert keys(others) == keys(exact[5:7])
    assert doubtful == keys(exact[3:5])


def test_without_losses_from_before_nothing_is_left_out(found, gradients):
    state, calibration = found
    ranking = rank(state, calibration.batches, METRICS, None, proposing(state))
    assert len(gradients) == len(list(calibration.batches))
    assert not ranking.lacks


def test_metrics_without_gradients_need_no_way_back(found, monkeypatch):
    state, calibration = found
    monkeypatch.setattr(torch.autograd, "grad", None)
    assert not rank(state, calibration.batches, ["mean_activation", "l1_weight"]).lacks


def test_a_layer_of_two_groups_is_counted_once():
    torch.manual_seed(0)
    model, inputs = Concatenated().eval(), torch.randn(6, 1, 8, 8)
    groups, _ = find_groups(model, inputs)
    assert sum(gate.layer == "depthwise" for group in groups for gate in group.gates) == 2
    batches = [(inputs, torch.tensor([0, 1, 2, 3, 0, 1]))]
    gates = list({gate for group in groups for gate in group.gates})
    statistics, _ = gather_statistics(model, gates, batches)
    name = "taylor_second_order"
    got = rank(State(model, groups, {}, {}), batches, [name]).scores[name]
    assert torch.allclose(got, score_units(groups, statistics, [name])[name])


class Concatenated(nn.Module):
    """A depthwise convolution behind a concatenation: it is in the groups of both branches."""

    def __init__(self):
        super().__init__()
        self.left, self.right = nn.Conv2d(1, 4, 3), nn.Conv2d(1, 6, 3)
        self.depthwise = nn.Conv2d(10, 10, 3, groups=10)
        self.head = nn.Conv2d(10, 4, 1)

    def forward(self, x):
        x = self.depthwise(torch.cat((self.left(x), self.right(x)), 1).relu())
        return self.head(x.relu()).mean((2, 3))
