"""The oracle measures the loss of the slim network, and its short cuts change no decision."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from slimnet.execution.layout import Layout, lay_out
from slimnet.execution.running import RunningNetwork, prepare_running
from slimnet.groups.cut import mask, slim_copy
from slimnet.groups.find import find_groups
from slimnet.groups.group import plan_for
from slimnet.records.data import Split
from slimnet.repair.repair import gather_inverse_grams, repaired_weights
from slimnet.search.candidates import propose_sets
from slimnet.search.evaluate import rank
from slimnet.search.objective import cost_factor
from slimnet.search.oracle import Oracle, surviving_candidates
from slimnet.search.state import State, first_state
from slimnet.search.trial import groups_read_only_by_consumers, make_trial
from slimnet.tasks.classification import mean_loss


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
    state = first_state(model, groups, calibration, repair=repair)
    assert state.read_only_by_consumers == {group.name for group in groups}
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
    state, proposals = (
        State(RunningNetwork(model), groups, {}, {}),
        proposals_for(groups, channels=1),
    )
    savings = [1.0 + number for number in range(len(proposals))]
    small = lay_out(calibration, layout=Layout(images=16))
    losses = rank(state, small.batches, ["taylor_first_order"]).losses
    whole, best = Oracle(state, calibration).measure(state, proposals, losses, savings)
    oracle = Oracle(state, small)
    raced, winner = oracle.measure(state, proposals, losses, savings)
    costs = [s.nats * cost_factor(s.nats, c) for s, c in zip(whole, savings, strict=True)]
    assert winner == best == costs.index(min(costs))
    assert min(sensitivity.images for sensitivity in raced) < calibration.images
    again, _ = oracle.measure(state, proposals, losses, savings)
    assert again == raced


def test_a_candidate_eliminated_before_is_measured_further_when_the_winner_is_gone(found):
    model, calibration, groups = found
    state, proposals = (
        State(RunningNetwork(model), groups, {}, {}),
        proposals_for(groups, channels=1),
    )
    small = lay_out(calibration, layout=Layout(images=16))
    losses = rank(state, small.batches, ["taylor_first_order"]).losses
    oracle = Oracle(state, small)
    _, first = oracle.measure(state, proposals, losses, [1.0] * len(proposals))
    rest = [p for number, p in enumerate(proposals) if number != first]
    measured, second = oracle.measure(state, rest, losses, [1.0] * len(rest))
    fresh, expected = Oracle(state, small).measure(state, rest, losses, [1.0] * len(rest))
    assert second == expected
    assert measured[second].nats == pytest.approx(fresh[expected].nats, abs=1e-6)


def test_known_changes_are_not_measured_again_and_change_no_result(found):
    model, calibration, groups = found
    state, proposals = (
        State(RunningNetwork(model), groups, {}, {}),
        proposals_for(groups, channels=1),
    )
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


def read_only_by_consumers(model, groups, images):
    def run(network):
        return (network(images[:2]),)

    return groups_read_only_by_consumers(prepare_running(model, {}, run), groups, run)


def test_where_channels_are_read_otherwise_all_of_theta_is_zeroed(images, residual):
    torch.manual_seed(0)
    model = SumOverChannels().eval()
    groups, _ = find_groups(model, images)
    groups = [g for g in groups if g.name == "first"]
    assert read_only_by_consumers(model, groups, images) == frozenset()
    if groups:
        calibration = Split("calibration", 6, [(images, torch.tensor([0, 1, 2, 3, 0, 1]))])
        state, proposals = (
            State(RunningNetwork(model), groups, {}, {}),
            proposals_for(groups, channels=1),
        )
        measured, _ = Oracle(state, calibration).measure(
            state, proposals, torch.zeros(6), [1.0] * len(proposals)
        )
        loss = mean_loss(model, calibration.batches)
        for proposal, sensitivity in zip(proposals, measured, strict=True):
            slim = slim_copy(model, plan_for(groups, proposal.units))
            expected = mean_loss(slim, calibration.batches) - loss
            assert sensitivity.nats == pytest.approx(expected, abs=1e-4)
    others, _ = find_groups(residual, images, layers="all")
    assert read_only_by_consumers(residual, others, images) == {g.name for g in others}


def test_a_lone_proposal_is_measured_on_every_image_where_none_is_known_to_be_harder(found):
    model, calibration, groups = found
    state = State(RunningNetwork(model), groups, {}, {})
    proposals = proposals_for(groups)[:1]
    losses = rank(state, calibration.batches, ["taylor_first_order"]).losses
    (measured,), _ = Oracle(state, calibration).measure(state, proposals, losses, [1.0])
    slim = mean_loss(state.without(proposals[0].units).model, calibration.batches)
    assert measured.images == calibration.images
    assert measured.nats == pytest.approx(slim - float(losses.mean()), abs=1e-5)


def test_a_repaired_layer_that_loses_outputs_too_puts_nothing_out_there(images):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 6, 1), nn.Conv2d(6, 5, 1), nn.Conv2d(5, 4, 1)).eval()
    groups, _ = find_groups(model, images)
    inverse_grams = gather_inverse_grams(
        model, groups, [(images, torch.zeros(6, dtype=torch.int64))]
    )
    plan = plan_for(groups, [torch.arange(2) for _ in groups])
    trial = make_trial(RunningNetwork(model), inverse_grams, plan, consumers_only=False)
    assert plan["1"] == {"in": (0, 1), "out": (0, 1)}
    assert not trial.values["1.weight"][:2].any()
    assert not trial.values["1.bias"][:2].any()
    assert torch.equal(
        trial.values["1.bias"][2:], repaired_weights(model, plan, inverse_grams)["1.bias"][2:]
    )


HARD = torch.full((4,), 2.0)


def changes(*values):
    return [torch.tensor(values, dtype=torch.float64)]


def test_a_loss_that_is_no_number_never_wins():
    seen = [changes(float("nan")), changes(1.0), changes(-1.0)]
    assert surviving_candidates([0, 1, 2], seen, [1.0, 1.0, 1.0], HARD[:1], likelihoods=True) == [2]
    assert surviving_candidates([0], seen, [1.0, 1.0, 1.0], HARD, likelihoods=True) == []


def test_a_candidate_stays_while_changes_as_large_as_the_last_could_turn_it():
    seen = [changes(1.0, 1.0), changes(0.0, 0.0)]
    assert surviving_candidates([0, 1], seen, [1.0, 1.0], HARD, likelihoods=True) == [0, 1]
    assert surviving_candidates([0, 1], seen, [1.0, 1.0], HARD[:3], likelihoods=True) == [1]
    assert surviving_candidates([0, 1], seen, [1.0, 0.1], HARD[:3], likelihoods=True) == [1]


def test_images_that_are_nearly_certain_cannot_turn_anything():
    seen = [changes(0.1, 0.1), changes(0.0, 0.0)]
    for loss, expected in ((0.5, [0, 1]), (1e-3, [1])):
        losses = torch.cat([HARD[:2], torch.full((100,), loss)])
        assert surviving_candidates([0, 1], seen, [1.0, 1.0], losses, likelihoods=True) == expected
        # of any other loss nothing is known
        assert surviving_candidates([0, 1], seen, [1.0, 1.0], losses, likelihoods=False) == [0, 1]


def test_odds_that_grew_on_one_image_may_grow_on_others_that_are_certain():
    losses = torch.cat([torch.tensor([2.0, 1e-3]), torch.full((100,), 5e-4)])
    # the leader gains much on the first image; the odds of the second become 50 times larger
    for second, expected in ((0.05, [0, 1]), (0.0, [1])):
        seen = [changes(0.0, 0.0), changes(-0.5, second)]
        assert surviving_candidates([0, 1], seen, [1.0, 1.0], losses, likelihoods=True) == expected


def test_a_loss_cannot_fall_below_zero():
    """Where losses are next to nothing, nothing can be gained, whatever changed before."""
    losses = torch.cat([HARD[:2], torch.full((100,), 1e-3)])
    seen = [changes(6.0, -5.0), changes(0.0, 0.0)]
    assert surviving_candidates([0, 1], seen, [1.0, 1.0], losses, likelihoods=True) == [1]


def test_two_that_are_equal_both_stay():
    seen = [changes(0.1, 0.1), changes(0.1, 0.1)]
    assert surviving_candidates([0, 1], seen, [1.0, 1.0], HARD, likelihoods=True) == [0, 1]


def test_a_total_that_may_still_change_its_sign_costs_what_it_may_become():
    """A gain is worth more the more it saves: the rest of the losses can make one of the first."""
    losses = torch.cat([HARD[:2], torch.full((100,), 1e-4)])
    seen = [changes(0.0, 1e-4), changes(0.0, -1e-3)]
    assert surviving_candidates([0, 1], seen, [1e4, 1e4], losses, likelihoods=True) == [0, 1]
