"""What the oracle measures, and that its short cuts change no decision."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from slimnet.groups import find_groups, mask, plan_for, slim_copy
from slimnet.measure import mean_loss
from slimnet.records import Split
from slimnet.recover import gather_moments, repaired_weights
from slimnet.recover.trace import trace_calls
from slimnet.search.cost import price_factor
from slimnet.search.layout import Layout, lay_out
from slimnet.search.oracle import Oracle
from slimnet.search.proposals import propose_sets
from slimnet.search.ranking import rank
from slimnet.search.state import State
from slimnet.search.trial import can_replay, make_trial


@pytest.fixture
def found(trained):
    model, splits = trained
    example = splits.calibration.batches[0][0][:2]
    return model, splits.calibration, find_groups(model, example)[0]


def proposals_for(groups, channels=2):
    units = sum(group.units for group in groups)
    scores = {"any": torch.rand(units, generator=torch.Generator().manual_seed(0))}
    return propose_sets(groups, scores, candidates=6, channels=channels)


@pytest.mark.parametrize("repair", [False, True])
def test_sensitivity_is_the_loss_of_the_slim_network_minus_the_loss(found, repair):
    model, calibration, groups = found
    batches = calibration.batches
    before = copy.deepcopy(model.state_dict())
    proposals = proposals_for(groups)
    moments = gather_moments(model, groups, batches) if repair else {}
    state = State(model, groups, {}, moments)
    losses = rank(state, batches, ["taylor_first_order"]).losses
    measured, chosen = Oracle(state, calibration).measure(
        state, proposals, losses, [1.0] * len(proposals)
    )
    loss = mean_loss(model, batches)
    for proposal, sensitivity in zip(proposals, measured, strict=True):
        slim = mean_loss(state.without(proposal.units).model, batches) - loss
        assert sensitivity.nats == pytest.approx(slim, abs=1e-5)
        assert sensitivity.images == calibration.images
        if not repair:
            reference = copy.deepcopy(model)
            mask(reference, plan_for(groups, proposal.units))
            masked = mean_loss(reference, batches) - loss
            assert sensitivity.nats == pytest.approx(masked, abs=1e-6)
    assert measured[chosen].nats == min(sensitivity.nats for sensitivity in measured)
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())


def test_the_race_ends_with_the_winner_of_the_full_measurement(found):
    model, calibration, groups = found
    state, proposals = State(model, groups, {}, {}), proposals_for(groups, channels=1)
    savings = [1.0 + number for number in range(len(proposals))]
    small = lay_out(calibration, layout=Layout(images=16))
    losses = rank(state, small.batches, ["taylor_first_order"]).losses
    whole, best = Oracle(state, calibration).measure(state, proposals, losses, savings)
    oracle = Oracle(state, small)
    raced, winner = oracle.measure(state, proposals, losses, savings)
    prices = [s.nats * price_factor(s.nats, c) for s, c in zip(whole, savings, strict=True)]
    assert winner == best == prices.index(min(prices))
    assert min(sensitivity.images for sensitivity in raced) < calibration.images
    again, _ = oracle.measure(state, proposals, losses, savings)
    assert again == raced


def test_what_lost_before_runs_on_when_the_winner_is_gone(found):
    model, calibration, groups = found
    state, proposals = State(model, groups, {}, {}), proposals_for(groups, channels=1)
    small = lay_out(calibration, layout=Layout(images=16))
    losses = rank(state, small.batches, ["taylor_first_order"]).losses
    oracle = Oracle(state, small)
    _, first = oracle.measure(state, proposals, losses, [1.0] * len(proposals))
    rest = [p for number, p in enumerate(proposals) if number != first]
    measured, second = oracle.measure(state, rest, losses, [1.0] * len(rest))
    fresh, expected = Oracle(state, small).measure(state, rest, losses, [1.0] * len(rest))
    assert second == expected
    assert measured[second].nats == pytest.approx(fresh[expected].nats, abs=1e-6)


def test_what_is_known_of_a_state_is_not_measured_again_and_changes_no_result(found):
    model, calibration, groups = found
    state, proposals = State(model, groups, {}, {}), proposals_for(groups, channels=1)
    small = lay_out(calibration, layout=Layout(images=16))
    losses = rank(state, small.batches, ["taylor_first_order"]).losses
    oracle, known = Oracle(state, small), {}
    savings = [1.0] * len(proposals)
    first = oracle.measure(state, proposals, losses, savings, known)
    held = {key: len(changes) for key, changes in known.items()}
    assert oracle.measure(state, proposals, losses, savings, known) == first
    assert {key: len(changes) for key, changes in known.items()} == held
    rest = [p for number, p in enumerate(proposals) if number != first[1]]
    expected = oracle.measure(state, rest, losses, savings[1:])
    assert oracle.measure(state, rest, losses, savings[1:], known) == expected


class SumOverChannels(nn.Module):
    """Reads its channels by a sum as well, so that zeroed consumers are not the whole of Θ_c."""

    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Conv2d(3, 6, 1), nn.Conv2d(6, 4, 1)

    def forward(self, x):
        x = self.first(x)
        return self.second(x).mean((2, 3)) + x.sum((1, 2, 3))[:, None]


def replayed(model, groups, images):
    def run():
        return (model(images[:2]),)

    return can_replay(model, groups, trace_calls(model, run), run)


def test_where_channels_are_read_otherwise_all_of_theta_is_zeroed(images, residual):
    torch.manual_seed(0)
    model = SumOverChannels().eval()
    groups, _ = find_groups(model, images)
    groups = [g for g in groups if g.name == "first"]
    assert replayed(model, groups, images) == frozenset()
    if groups:
        calibration = Split("calibration", 6, [(images, torch.tensor([0, 1, 2, 3, 0, 1]))])
        state, proposals = State(model, groups, {}, {}), proposals_for(groups, channels=1)
        measured, _ = Oracle(state, calibration).measure(
            state, proposals, torch.zeros(6), [1.0] * len(proposals)
        )
        loss = mean_loss(model, calibration.batches)
        for proposal, sensitivity in zip(proposals, measured, strict=True):
            slim = slim_copy(model, plan_for(groups, proposal.units))
            expected = mean_loss(slim, calibration.batches) - loss
            assert sensitivity.nats == pytest.approx(expected, abs=1e-4)
    others, _ = find_groups(residual, images, layers="all")
    assert replayed(residual, others, images) == {g.name for g in others}


def test_a_lone_proposal_is_measured_on_every_image_where_none_is_known_to_be_harder(found):
    model, calibration, groups = found
    state, proposals = State(model, groups, {}, {}), proposals_for(groups)[:1]
    losses = rank(state, calibration.batches, ["taylor_first_order"]).losses
    (measured,), _ = Oracle(state, calibration).measure(state, proposals, losses, [1.0])
    slim = mean_loss(state.without(proposals[0].units).model, calibration.batches)
    assert measured.images == calibration.images
    assert measured.nats == pytest.approx(slim - float(losses.mean()), abs=1e-5)


def test_a_repaired_layer_that_loses_outputs_too_puts_nothing_out_there(images):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 6, 1), nn.Conv2d(6, 5, 1), nn.Conv2d(5, 4, 1)).eval()
    groups, _ = find_groups(model, images)
    moments = gather_moments(model, groups, [(images, torch.zeros(6, dtype=torch.int64))])
    plan = plan_for(groups, [torch.arange(2) for _ in groups])
    trial = make_trial(State(model, groups, {}, moments), plan, (), consumers_only=False)
    assert plan["1"] == {"in": (0, 1), "out": (0, 1)}
    assert not trial.values["1.weight"][:2].any()
    assert not trial.values["1.bias"][:2].any()
    assert torch.equal(
        trial.values["1.bias"][2:], repaired_weights(model, plan, moments)["1.bias"][2:]
    )
