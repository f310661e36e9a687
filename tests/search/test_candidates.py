"""The candidates that the metrics propose: sets over all groups, and blocks of one group."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from torch import nn

from slimnet.groups.find import find_groups
from slimnet.search.candidates import BlockProposer, SetProposer, propose_sets
from slimnet.search.widths import AllowedWidths


def flat(groups, proposal):
    starts = [sum(g.units for g in groups[:i]) for i in range(len(groups))]
    return [start + u for start, units in zip(starts, proposal.units, strict=True)
            for u in units.tolist()]  # fmt: skip


def test_metrics_propose_in_turn_each_its_lowest_not_yet_chosen(found):
    _, _, groups = found
    a = torch.arange(16).double()
    b = torch.tensor([0, 9, 1, 8, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7]).double()
    proposals = propose_sets(groups, {"a": a, "b": b}, candidates=5, channels=1)
    assert [(p.metric, flat(groups, p)) for p in proposals] == [
        ("a", [0]), ("b", [2]), ("a", [1]), ("b", [4]), ("a", [3]),
    ]  # fmt: skip


def test_sets_are_distinct_and_never_empty_a_group(found):
    _, _, groups = found
    score = torch.arange(16).double()
    proposals = propose_sets(groups, {"a": score, "b": score}, candidates=9, channels=8)
    assert [(p.metric, flat(groups, p)) for p in proposals] == [
        ("a", list(range(7))), ("b", list(range(8, 15))),
    ]  # fmt: skip
    last = [dataclasses.replace(g, original_units=g.original_units[:1]) for g in groups]
    assert propose_sets(last, {"a": score[:2]}, candidates=4, channels=1) == []


def test_a_block_brings_one_group_down_to_the_next_paying_width(residual, images):
    groups, _ = find_groups(residual, images, layers="all")
    scores = {"up": torch.arange(sum(g.units for g in groups)).double()}
    scores["down"] = -scores["up"]
    proposer = BlockProposer(groups, candidates=99, allowed=AllowedWidths((4, 8, 12)))
    found = {group.name: [] for group in groups}
    for proposal in proposer.propose(groups, scores):
        (name,) = (g.name for g, u in zip(groups, proposal.units, strict=True) if len(u))
        found[name].append(proposal)
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
    too_wide = BlockProposer(groups, candidates=99, allowed=AllowedWidths((64,)))
    assert too_wide.propose(groups, scores) == []


def test_the_cheapest_group_is_measured_again_first_and_one_that_breaks_the_budget_is_closed(
    residual, images
):
    groups, _ = find_groups(residual, images, layers="all")
    scores = {"up": torch.arange(sum(g.units for g in groups)).double()}
    proposer = BlockProposer(groups, candidates=1, allowed=AllowedWidths((2, 4, 8)))
    every = proposer.propose(groups, scores)
    assert len(every) == len(groups), "nothing is known yet: all are measured"
    proposer.learn(groups, every, [float(cost) for cost in range(len(every))])
    again = proposer.propose(groups, scores)
    assert [p.key for p in again] == [every[0].key]
    while proposals := proposer.propose(groups, scores):
        proposer.shrink_step(groups, proposals[0])


def test_a_group_counts_as_cheap_as_its_cheapest_block(residual, images):
    groups, _ = find_groups(residual, images, layers="all")
    up = torch.arange(sum(g.units for g in groups)).double()
    proposer = BlockProposer(groups, candidates=1, allowed=AllowedWidths((2, 4, 8)))
    every = proposer.propose(groups, {"up": up, "down": -up})
    assert len(every) == 2 * len(groups)
    # the last group's two blocks: the first is the cheapest of all, the second the dearest
    costs = [float(number) for number in range(2, len(every))] + [0.0, 99.0]
    proposer.learn(groups, every, costs)
    again = proposer.propose(groups, {"up": up, "down": -up})
    assert [p.key for p in again] == [p.key for p in every[-2:]]


def test_blocks_are_several_widths_at_first_and_halved_until_the_group_is_closed():
    model = nn.Sequential(nn.Conv2d(1, 32, 1), nn.ReLU(), nn.Conv2d(32, 2, 1)).eval()
    groups, _ = find_groups(model, torch.randn(2, 1, 4, 4))
    scores = {"up": torch.arange(32.0)}
    proposer = BlockProposer(groups, candidates=1, allowed=AllowedWidths(tuple(range(2, 33, 2))))
    sizes = []
    while proposals := proposer.propose(groups, scores):
        sizes.append(proposals[0].count)
        proposer.shrink_step(groups, proposals[0])
    assert sizes == [8, 4, 2]
    proposer.reopen()
    assert proposer.propose(groups, scores)[0].count == 2


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
    sizes = [proposer.propose(groups, scores)[0].count]
    while proposer.can_shrink:
        proposer.shrink_step(groups, proposer.propose(groups, scores)[0])
        sizes.append(proposer.propose(groups, scores)[0].count)
    assert sizes == [4, 2, 1]
    grown = []
    for _ in range(3):
        proposer.grow_step()
        grown.append(proposer.propose(groups, scores)[0].count)
    assert grown == [2, 4, 4], "never larger than at first"
