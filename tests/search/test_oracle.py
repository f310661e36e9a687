"""The oracle measures the loss of the slim network, in races that seldom miss the cheapest."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from slimnet.execution.layout import Layout, lay_out
from slimnet.execution.running import MemoryBudget, RunningNetwork, prepare_running
from slimnet.groups.cut import mask, slim_copy
from slimnet.groups.find import find_groups
from slimnet.groups.group import plan_for
from slimnet.records.data import Split
from slimnet.repair.repair import gather_inverse_grams, repaired_weights
from slimnet.search.candidates import propose_sets
from slimnet.search.evaluate import rank
from slimnet.search.objective import cost_per_saving
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
    contests = Oracle(state, calibration).measure(
        state, [[one] for one in proposals], losses, [[1.0]] * len(proposals)
    )
    measured = [contest.sensitivities[0] for contest in contests]
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
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())


def test_the_winner_of_a_race_is_measured_on_all_images_and_is_about_the_cheapest(found):
    model, calibration, groups = found
    state, proposals = (
        State(RunningNetwork(model), groups, {}, {}),
        proposals_for(groups, channels=1),
    )
    savings = [1.0 + number for number in range(len(proposals))]
    small = lay_out(calibration, layout=Layout(images=8))
    losses = rank(state, small.batches, ["taylor_first_order"]).losses
    oracle = Oracle(state, small)
    alone = oracle.measure(state, [[p] for p in proposals], losses, [[one] for one in savings])
    (raced,) = oracle.measure(state, [proposals], losses, [savings])
    costs = [
        cost_per_saving(contest.sensitivities[0].nats, saved)
        for contest, saved in zip(alone, savings, strict=True)
    ]
    assert raced.sensitivities[raced.winner].images == calibration.images
    assert min(one.images for one in raced.sensitivities) < calibration.images
    assert sorted(costs).index(costs[raced.winner]) < len(proposals) // 2
    assert oracle.measure(state, [proposals], losses, [savings]) == [raced]


@pytest.mark.parametrize("total_bytes", [0, 10**9])
def test_contests_do_not_disturb_each_other(found, total_bytes):
    """Nor does it matter whether their trials are in memory at the same time."""
    model, calibration, groups = found
    running = RunningNetwork(model, memory=MemoryBudget(total_bytes))
    state, proposals = State(running, groups, {}, {}), proposals_for(groups, channels=1)
    small = lay_out(calibration, layout=Layout(images=8))
    losses = rank(state, small.batches, ["taylor_first_order"]).losses
    oracle, contests = Oracle(state, small), [proposals[:4], proposals[4:]]
    savings = [[1.0] * len(one) for one in contests]
    together = oracle.measure(state, contests, losses, savings)
    alone = [oracle.measure(state, [c], losses, [s])[0]
             for c, s in zip(contests, savings, strict=True)]  # fmt: skip
    assert together == alone


def test_with_a_reference_the_distance_from_its_outputs_is_measured(found):
    model, calibration, groups = found
    state, proposals = State(RunningNetwork(model), groups, {}, {}), proposals_for(groups)
    contests = Oracle(state, calibration, model).measure(
        state, [[one] for one in proposals], torch.zeros(calibration.images),
        [[1.0]] * len(proposals),
    )  # fmt: skip
    with torch.no_grad():
        for proposal, contest in zip(proposals, contests, strict=True):
            (sensitivity,) = contest.sensitivities
            slim, total = state.without(proposal.units).model, 0.0
            for inputs, _ in calibration.batches:
                aim, got = (network(inputs).double() for network in (model, slim))
                aim, got = (scores - scores.mean(1, keepdim=True) for scores in (aim, got))
                squares = (got - aim).square().mean(1)
                total += float((squares / aim.square().mean()).sum())
            assert sensitivity.nats == pytest.approx(total / calibration.images, rel=1e-4)


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
        (contest,) = Oracle(state, calibration).measure(
            state, [proposals], torch.zeros(6), [[1.0] * len(proposals)]
        )
        loss = mean_loss(model, calibration.batches)
        for proposal, sensitivity in zip(proposals, contest.sensitivities, strict=True):
            slim = slim_copy(model, plan_for(groups, proposal.units))
            expected = mean_loss(slim, calibration.batches) - loss
            assert sensitivity.nats == pytest.approx(expected, abs=1e-4)
    others, _ = find_groups(residual, images, layers="all")
    assert read_only_by_consumers(residual, others, images) == {g.name for g in others}


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


def changes(*values):
    return [torch.tensor(values, dtype=torch.float64)]


def test_a_loss_that_is_no_number_never_stays():
    seen = [changes(float("nan")), changes(1.0), changes(-1.0)]
    assert surviving_candidates([0, 1, 2], seen, [1.0] * 3, keep=3) == [2, 1]
    assert surviving_candidates([0], seen, [1.0] * 3, keep=1) == []


def test_the_cheapest_for_what_they_save_stay():
    seen = [changes(1.0, 1.0), changes(0.5, 0.0), changes(-0.1, 0.0), changes(-0.1, 0.0)]
    savings = [10.0, 1.0, 1.0, 5.0]
    assert surviving_candidates([0, 1, 2, 3], seen, savings, keep=3) == [3, 2, 0]
    assert surviving_candidates([0, 1], seen, savings, keep=1) == [0]
