"""The candidates: sets over all groups, widths of one group, and whole branches."""

from __future__ import annotations

import dataclasses
from itertools import pairwise

import torch

from slimnet.groups.branches import Branch
from slimnet.groups.find import find_groups
from slimnet.search.candidates import (
    propose_branches,
    propose_sets,
    propose_widths,
    widths_to_measure,
)
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


def test_every_width_has_a_set_of_each_metric_the_same_one_once(residual, images):
    groups, _ = find_groups(residual, images, layers="all")
    scores = {"up": torch.arange(sum(g.units for g in groups)).double()}
    scores |= {"down": -scores["up"], "same": scores["up"]}
    levels = dict(zip(
        (group.name for group in groups),
        propose_widths(groups, scores, AllowedWidths((2, 4, 8, 12)), candidates=9),
        strict=True,
    ))  # fmt: skip
    number = next(i for i, g in enumerate(groups) if g.name == "stem")
    stem = [[(p.metric, p.units[number].tolist()) for p in sets] for sets in levels["stem"]]
    assert stem == [
        [("up", [0, 1, 2, 3]), ("down", [4, 5, 6, 7])],
        [("up", [0, 1, 2, 3, 4, 5]), ("down", [2, 3, 4, 5, 6, 7])],
    ]
    for sets in levels["stem"]:
        assert all(len(u) == 0 for p in sets for i, u in enumerate(p.units) if i != number)
    # 12 channels in 2 convolution groups are 6 units: 8, 4 and 2 channels are 4, 2 and 1 units
    number = next(i for i, g in enumerate(groups) if g.name == "wide")
    assert [len(sets[0].units[number]) for sets in levels["wide"]] == [2, 4, 5]
    assert not any(propose_widths(groups, scores, AllowedWidths((64,)), candidates=9))
    few = propose_widths(groups, scores, AllowedWidths((2, 4, 8, 12)), candidates=1)
    assert all(len(sets) == 1 for own in few for sets in own)


def test_of_many_widths_the_nearest_are_measured_closest_and_the_last_one_too():
    assert widths_to_measure([3, 6, 7]) == [3, 6, 7]
    found = widths_to_measure(range(1, 193))
    assert len(found) <= 8
    assert (found[0], found[-1]) == (6, 192)
    ratios = [high / low for low, high in pairwise(found)]
    assert max(ratios) < 1.3 * min(ratios)


def test_a_branch_is_proposed_with_all_units_of_its_groups(residual, images):
    groups, _ = find_groups(residual, images, layers="all")
    names = [group.name for group in groups]
    branch = Branch(names[0], (names[0], names[2]), (), ())
    (proposal,) = propose_branches(groups, [branch])
    gone = [len(units) for units in proposal.units]
    assert gone == [g.units if g.name in branch.groups else 0 for g in groups]
