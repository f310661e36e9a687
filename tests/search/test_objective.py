"""What a step saves, block proposals, proposers, and the latency table."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from slimnet.groups import find_groups, plan_for, slim_copy
from slimnet.measure import count_conv_weights, measure_size
from slimnet.search import search
from slimnet.search.allowed import AllowedWidths
from slimnet.search.cost import Width, macs_cost, saved_by, weights_cost, widths_of
from slimnet.search.latency import LatencyTable
from slimnet.search.proposals import propose_blocks
from slimnet.search.proposer import BlockProposer, SetProposer
from slimnet.settings import Settings


def layer_weights(model):
    return sum(m.weight.numel() for m in model.modules() if isinstance(m, (nn.Conv2d, nn.Linear)))


def test_saved_weights_and_macs_are_those_of_the_slim_network(residual, images):
    groups, _ = find_groups(residual, images, layers="all")
    plan = plan_for(groups, [torch.arange(max(1, g.units // 3)) for g in groups])
    slim = slim_copy(residual, plan)
    widths = widths_of(residual)
    saved = saved_by(plan, residual, widths, weights_cost(residual))
    assert saved == layer_weights(residual) - layer_weights(slim)
    saved = saved_by(plan, residual, widths, macs_cost(residual, images))
    before, after = measure_size(residual, images).macs, measure_size(slim, images).macs
    assert saved == before - after


def test_a_block_brings_one_group_down_to_the_next_paying_width(residual, images):
    groups, _ = find_groups(residual, images, layers="all")
    scores = {"up": torch.arange(sum(g.units for g in groups)).double()}
    scores["down"] = -scores["up"]
    found = propose_blocks(groups, scores, allowed=AllowedWidths((4, 8, 12)), blocks=1)
    stem = {p.metric: p for p in found["stem"]}
    number = next(i for i, g in enumerate(groups) if g.name == "stem")
    assert stem["up"].units[number].tolist() == [0, 1, 2, 3]
    assert stem["down"].units[number].tolist() == [4, 5, 6, 7]
    assert all(len(u) == 0 for i, u in enumerate(stem["up"].units) if i != number)
    # 12 channels in 2 convolution groups are 6 units: down to 8 channels is down to 4 units
    number = next(i for i, g in enumerate(groups) if g.name == "wide")
    assert len(found["wide"][0].units[number]) == 2
    # 6 channels go down to 4, and from 4 there is no lower width
    assert len(next(p for p in found["inner"]).units[1]) == 2
    assert propose_blocks(groups, scores, allowed=AllowedWidths((64,)), blocks=1) == {}


def test_two_blocks_go_down_two_widths(residual, images):
    groups, _ = find_groups(residual, images, layers="all")
    scores = {"up": torch.arange(sum(g.units for g in groups)).double()}
    found = propose_blocks(groups, scores, allowed=AllowedWidths((2, 4, 6, 8)), blocks=2)
    assert sum(len(u) for u in found["stem"][0].units) == 4


def test_block_proposer_measures_the_cheapest_again_and_gives_up_on_what_breaks(residual, images):
    groups, _ = find_groups(residual, images, layers="all")
    scores = {"up": torch.arange(sum(g.units for g in groups)).double()}
    proposer = BlockProposer(groups, candidates=1, allowed=AllowedWidths((2, 4, 8)))
    every = proposer.propose(groups, scores)
    assert len(every) == len(groups), "nothing is known yet: all are measured"
    for price, proposal in enumerate(every):
        proposer.learn(groups, proposal, float(price))
    again = proposer.propose(groups, scores)
    assert [p.key for p in again] == [every[0].key]
    while proposer.propose(groups, scores):
        assert proposer.narrow(groups, proposer.propose(groups, scores)[0])


@pytest.mark.parametrize("widest", [48, 50, 64])
def test_narrow_layers_go_down_one_width_at_a_time_also_from_one_that_does_not_pay(widest):
    model = nn.Sequential(nn.Conv2d(1, widest, 1), nn.ReLU(), nn.Conv2d(widest, 2, 1)).eval()
    groups, _ = find_groups(model, torch.randn(2, 1, 4, 4))
    proposer = BlockProposer(groups, candidates=1, allowed=AllowedWidths((16, 32, 48, 64)))
    (first,) = proposer.propose(groups, {"up": torch.arange(float(widest))})
    assert first.count == {48: 16, 50: 2, 64: 16}[widest]


def test_set_proposer_halves_down_to_one_and_doubles_again(residual, images):
    groups, _ = find_groups(residual, images, layers="all")
    proposer = SetProposer(groups, candidates=4, step=4)
    scores = {"up": torch.arange(sum(g.units for g in groups)).double()}
    sizes = []
    while True:
        proposal = proposer.propose(groups, scores)[0]
        sizes.append(sum(len(u) for u in proposal.units))
        if not proposer.narrow(groups, proposal):
            break
    assert sizes == [4, 2, 1]
    grown = []
    for _ in range(3):
        proposer.widen()
        grown.append(sum(len(u) for u in proposer.propose(groups, scores)[0].units))
    assert grown == [2, 4, 4], "never larger than at first"


def test_latency_table_scales_with_widths_and_is_refreshed(residual, images):
    calls = []

    def time_layers(network):
        calls.append(network)
        return {"inner": 2.0, "depthwise": 1.0, "": 0.5}

    table = LatencyTable(time_layers, residual)
    widths = widths_of(residual)
    assert table.total(widths) == 3.5
    groups, _ = find_groups(residual, images, layers="all")
    half = [torch.arange(g.units // 2) for g in groups]
    slim = slim_copy(residual, plan_for(groups, half))
    # inner: half of its inputs and half of its outputs; depthwise: half of its channels
    assert table.total(widths_of(slim)) == pytest.approx(0.5 + 2.0 / 4 + 1.0 / 2)
    table.refresh(residual)
    assert len(calls) == 1
    table.refresh(slim)
    assert calls[1:] == [slim]


@pytest.mark.parametrize("objective", ["params", "macs", "latency"])
def test_search_for_each_objective_stays_within_the_budget(trained, objective):
    model, splits = trained
    groups, _ = find_groups(model, splits.calibration.batches[0][0][:2])
    settings = Settings(max_drop=10, confidence=0.5, oracle_k=4, objective=objective)
    trajectory, slim = search(
        model, groups, splits, settings, time_layers=lambda network: {"0": 1.0, "3": 2.0, "": 0.1}
    )
    kept = [s for s in trajectory.steps if not s.taken_back][: trajectory.kept_steps]
    assert all(s.drop.points <= 10 for s in kept if s.within_budget)
    if trajectory.kept_steps:
        assert count_conv_weights(slim) < count_conv_weights(model)


def test_no_repair_leaves_the_kept_weights_as_they_were(trained):
    model, splits = trained
    groups, _ = find_groups(model, splits.calibration.batches[0][0][:2])
    settings = Settings(max_drop=10, confidence=0.5, step=1, oracle_k=4, repair=False)
    trajectory, slim = search(model, groups, splits, settings)
    expected = slim_copy(model, trajectory.plan).state_dict()
    assert all(torch.equal(v, expected[k]) for k, v in slim.state_dict().items())
    repaired, other = search(model, groups, splits, Settings(max_drop=10, confidence=0.5, step=1))
    same = slim_copy(model, repaired.plan).state_dict()
    assert any(not torch.equal(v, same[k]) for k, v in other.state_dict().items())


def test_transposed_convolutions_cost_what_they_compute():
    model = nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1), nn.ConvTranspose2d(8, 4, 2, stride=2), nn.Conv2d(4, 2, 1)
    )
    example = torch.randn(1, 3, 8, 8)
    cost, widths = macs_cost(model, example), widths_of(model)
    assert sum(cost(n, w) for n, w in widths.items()) == measure_size(model, example).macs


class Framed(nn.Module):
    """Two layers that see the 4 frames of a clip as images of their own, and one that does not."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.hidden, self.head = nn.Conv2d(3, 6, 3), nn.Linear(6, 5), nn.Linear(20, 2)

    def forward(self, x):
        frames = self.conv(x.flatten(0, 1)).relu().mean((2, 3))
        return self.head(self.hidden(frames).reshape(len(x), -1))


def test_layers_that_see_frames_as_images_cost_what_they_compute():
    model, example = Framed(), torch.randn(1, 4, 3, 6, 6)
    cost, widths = macs_cost(model, example), widths_of(model)
    assert sum(cost(n, w) for n, w in widths.items()) == measure_size(model, example).macs


def test_a_convolution_costs_as_much_as_with_the_next_widths_and_a_linear_layer_every_channel(
    residual,
):
    def time_layers(network):
        return {"inner": 8.0, "hidden": 4.0}

    table = LatencyTable(time_layers, residual, input_widths=(1, 4, 8), output_widths=(8, 16))
    assert widths_of(residual)["inner"] == Width(8, 6)
    assert table.cost("inner", Width(8, 1)) == table.cost("inner", Width(5, 8)) == 8.0
    # fewer inputs than a block cost three more, for bringing them in order
    assert table.cost("inner", Width(4, 8)) == table.cost("inner", Width(3, 6)) == 7.0
    assert table.cost("inner", Width(1, 8)) == 4.0
    assert table.cost("inner", Width(8, 9)) == 16.0
    assert table.cost("hidden", Width(31, 10)) == pytest.approx(4.0 * 31 / 32)
