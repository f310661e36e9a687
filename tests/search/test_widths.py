"""The widths that users allow: every layer keeps to them, whatever the proposer and the budget."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from slimnet.execution.layers import output_channels
from slimnet.groups.find import find_groups, keep_layers
from slimnet.groups.group import Gate, Group, Member
from slimnet.options import Options
from slimnet.search import objective
from slimnet.search.search import search
from slimnet.search.widths import AllowedWidths, allow_widths

EVERYTHING = {"max_drop": 100, "confidence": 0.5, "oracle_k": 4, "metrics": ("taylor_first_order",)}
PROPOSERS = {
    "single channels": {"step": 1},
    "sets": {"step": 5},
    "params": {"objective": "params"},
    "blocks": {"objective": "latency", "depth": "off"},
}

TOO_FAR = ("plain", "blocks", 0.3)


class Concatenated(nn.Module):
    """A depthwise convolution behind a concatenation: its width is the sum of two others."""

    def __init__(self, left: int, right: int) -> None:
        super().__init__()
        both = left + right
        self.left = nn.Conv2d(1, left, 3, padding=1)
        self.right = nn.Conv2d(1, right, 3, padding=1)
        self.depthwise = nn.Conv2d(both, both, 3, padding=1, groups=both)
        self.head = nn.Conv2d(both, 4, 1)

    def forward(self, x):
        x = self.depthwise(torch.cat((self.left(x), self.right(x)), 1).relu())
        return self.head(x.relu()).mean((2, 3))


class Grouped(nn.Module):
    """A residual stream of 12 channels that a convolution of 2 groups reads: 6 units."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(1, 12, 3, padding=1)
        self.inner = nn.Conv2d(12, 10, 3, padding=1)
        self.outer = nn.Conv2d(10, 12, 3, padding=1)
        self.head = nn.Conv2d(12, 4, 3, padding=1, groups=2)

    def forward(self, x):
        x = self.stem(x).relu()
        return self.head((x + self.outer(self.inner(x).relu())).relu()).mean((2, 3))


def learn(model, splits):
    optimizer = torch.optim.Adam(model.parameters(), lr=0.02)
    for _ in range(3):
        for x, y in splits.calibration.batches:
            optimizer.zero_grad()
            nn.functional.cross_entropy(model(x), y).backward()
            optimizer.step()
    return model.eval()


@pytest.fixture(scope="module")
def networks(trained):
    torch.manual_seed(0)
    made = {"plain": trained[0], "grouped": Grouped(), "concatenated": Concatenated(9, 16)}
    return {name: learn(m, trained[1]) if m is not trained[0] else m for name, m in made.items()}


@pytest.fixture(autouse=True)
def paying(monkeypatch):
    """Widths that pay on an imagined runtime; no machine is measured here."""
    monkeypatch.setattr(objective, "measure_paying_widths", lambda *_: (5, 10, 15))


def slimmed(model, splits, keep=(), **changes):
    """The search's trajectory, and of each layer how many channels there were and are left."""
    groups, frozen = find_groups(model, splits.calibration.batches[0][0][:2])
    groups, _ = keep_layers(groups, frozen, keep)
    before = output_channels(model)

    def time_layers(network):
        return {name: float(width) for name, width in output_channels(network).items()}

    options = Options().changed({**EVERYTHING, **changes})
    trajectory, slim = search(model, groups, splits, options, time_layers=time_layers)
    after = output_channels(slim)
    return trajectory, {name: (width, after[name]) for name, width in before.items()}


@pytest.mark.parametrize("ratio", [0, 0.3, 0.5, 1])
@pytest.mark.parametrize("proposer", PROPOSERS)
@pytest.mark.parametrize("network", ["plain", "grouped", "concatenated"])
def test_no_layer_loses_more_than_the_share_allowed(networks, trained, network, proposer, ratio):
    changes = PROPOSERS[proposer] | {"max_ratio": ratio, "repair": False}
    trajectory, widths = slimmed(networks[network], trained[1], **changes)
    for layer, (before, after) in widths.items():
        assert after >= max(1, before - math.floor(ratio * before)), layer
    # the next lower width that pays is further than 0.3 of the channels of the plain network
    assert bool(trajectory.plan) == (ratio > 0 and (network, proposer, ratio) != TOO_FAR)
    assert f"--max-ratio {ratio:g}" in trajectory.stopped_because


@pytest.mark.parametrize("repair", [True, False])
def test_a_large_budget_takes_the_whole_share_of_every_layer(networks, trained, repair):
    changes = {"step": 3, "max_ratio": 0.3, "repair": repair}
    _, widths = slimmed(networks["plain"], trained[1], **changes)
    assert widths == {"0": (8, 6), "3": (8, 6), "8": (4, 4)}
    # two channels of the stream make one unit: 3 of 12 may go, so one unit does
    _, widths = slimmed(networks["grouped"], trained[1], **changes)
    assert widths == {
        "stem": (12, 10), "inner": (10, 7), "outer": (12, 10), "head": (4, 4),
    }  # fmt: skip


def test_a_share_is_what_the_user_wrote_and_not_its_binary_neighbour(networks, trained):
    model = nn.Sequential(nn.Conv2d(1, 100, 3), nn.ReLU(), nn.Conv2d(100, 4, 6), nn.Flatten())
    groups, _ = find_groups(model.eval(), torch.randn(2, 1, 8, 8))
    assert 0.29 * 100 < 29
    for ratio, room in ((0.29, 29), (0.999, 99), (1, 99), (0, 0)):
        assert allow_widths(model, groups, Options(max_ratio=ratio)).room(groups[0]) == room


@pytest.mark.parametrize("multiple", [2, 3, 8, 64])
@pytest.mark.parametrize("named", ["params", "macs", "channels", "latency"])
@pytest.mark.parametrize("network", ["plain", "grouped", "concatenated"])
def test_every_slimmed_layer_has_a_multiple(networks, trained, network, named, multiple):
    changes = {"objective": named, "round_to": multiple, "repair": False}
    trajectory, widths = slimmed(networks[network], trained[1], **changes)
    for layer, (before, after) in widths.items():
        assert after == before or (after > 0 and after % multiple == 0), layer
    assert f"is a multiple of {multiple}" in trajectory.stopped_because
    assert not trajectory.plan or multiple < 64
    assert trajectory.plan or multiple > 3


def test_every_step_on_the_way_obeys_as_well(networks, trained):
    trajectory, _ = slimmed(networks["plain"], trained[1], round_to=3, objective="params")
    for step in trajectory.steps:
        for number in step.chosen:
            ((_, units),) = step.candidates[number].channels.items()
            assert len(units) in (2, 3, 5)


@pytest.mark.parametrize(
    ("network", "multiple", "left"),
    [
        ("plain", 3, {"0": 3, "3": 3}),
        ("plain", 1, {"0": 1, "3": 1}),
        # 10 is no multiple of 4; units of the stream are pairs of channels
        ("grouped", 4, {"stem": 4, "inner": 4, "outer": 4}),
        ("grouped", 3, {"stem": 6, "inner": 3, "outer": 6}),
        # the 16 may only go down once the 9 have, else the depthwise layer had no multiple
        ("concatenated", 8, {"left": 8, "right": 8, "depthwise": 16}),
    ],
)
def test_a_large_budget_goes_down_to_the_lowest_multiple(
    networks, trained, network, multiple, left
):
    changes = {"objective": "params", "round_to": multiple, "repair": False}
    _, widths = slimmed(networks[network], trained[1], **changes)
    assert {name: after for name, (before, after) in widths.items() if before != after} == left


def test_a_layer_behind_a_concatenation_needs_both_branches_to_be_a_multiple(networks, trained):
    model = networks["concatenated"]
    groups, _ = find_groups(model, trained[1].calibration.batches[0][0][:2])
    allowed = allow_widths(model, groups, Options(round_to=8))
    assert [group.units for group in groups] == [9, 16]
    for (left, right), holds in {(0, 0): True, (1, 0): True, (1, 8): True, (0, 8): False}.items():
        assert (
            allowed.are_multiples_after(groups, (torch.arange(left), torch.arange(right))) == holds
        )


def test_a_layer_behind_a_concatenation_keeps_the_other_branch_whole(networks, trained):
    # with the 9 kept, no number of the 16 makes both layers a multiple of 8
    trajectory, _ = slimmed(networks["concatenated"], trained[1], ["left"], round_to=8)
    assert trajectory.plan == {}
    trajectory, widths = slimmed(networks["concatenated"], trained[1], ["left"], max_ratio=0.5)
    assert widths["left"] == (9, 9)
    assert trajectory.plan


def test_share_and_multiple_together_round_up(networks, trained):
    # half of 8 may go, which leaves 4: the lowest multiple of 3 above it is 6
    changes = {"objective": "macs", "round_to": 3, "max_ratio": 0.5}
    trajectory, widths = slimmed(networks["plain"], trained[1], **changes)
    assert (widths["0"], widths["3"]) == ((8, 6), (8, 6))
    assert "is a multiple of 3 and keeps to --max-ratio 0.5" in trajectory.stopped_because


def test_within_a_tight_budget_the_widths_obey_as_well(networks, trained):
    for changes in ({"round_to": 2, "objective": "params"}, {"step": 4, "max_ratio": 0.25}):
        trajectory, widths = slimmed(networks["plain"], trained[1], max_drop=5, **changes)
        assert all(after % 2 == 0 and after >= 2 for _, after in widths.values())
        assert all(s.drop.points <= 5 for s in trajectory.steps if s.within_budget)


@pytest.mark.parametrize("proposer", PROPOSERS)
def test_a_kept_layer_and_what_is_coupled_to_it_keep_all(networks, trained, proposer):
    _, widths = slimmed(networks["grouped"], trained[1], ["outer"], **PROPOSERS[proposer])
    assert widths["stem"] == widths["outer"] == (12, 12)
    assert widths["inner"][1] < 10


@pytest.mark.parametrize("named", ["params", "macs", "latency"])
def test_auto_goes_by_the_widths_that_pay(networks, trained, named):
    changes = {"round_to": "auto", "objective": named, "repair": False}
    trajectory, widths = slimmed(networks["grouped"], trained[1], **changes)
    # the runtime counts in fives; pairs of channels stay below
    assert {name: after for name, (_, after) in widths.items()} == {
        "stem": 4, "inner": 5, "outer": 4, "head": 4,
    }  # fmt: skip
    (note,) = trajectory.notes
    assert note == (
        "--round-to auto on onnxruntime-cpu: the widths that pay are 5, 10, 15, and on in steps "
        "of 5"
    )


def test_auto_says_so_where_every_width_pays(networks, trained, monkeypatch):
    monkeypatch.setattr(objective, "measure_paying_widths", lambda *_: (4, 8, 12))
    changes = {"round_to": "auto", "objective": "params", "repair": False}
    trajectory, widths = slimmed(networks["plain"], trained[1], **changes)
    assert "rounding widths gains nothing" in trajectory.notes[0]
    assert (widths["0"][1], widths["3"][1]) == (1, 1)


def test_without_round_to_nothing_is_measured_and_any_width_is_allowed(
    networks, trained, monkeypatch
):
    monkeypatch.setattr(objective, "measure_paying_widths", None)
    trajectory, widths = slimmed(networks["plain"], trained[1], objective="params")
    assert trajectory.notes == ()
    assert (widths["0"][1], widths["3"][1]) == (1, 1)


def test_a_width_that_pays_and_is_a_multiple_is_the_lower_multiple():
    allowed = AllowedWidths(paying=(16, 32, 48), multiple=12)

    def lower(width):
        every = torch.arange(width)
        member = Member("layer", "out", every, every, every)
        group = Group("layer", (member,), (Gate("layer", "layer"),), every)
        counts = allowed.counts(group, every, {"layer": width})
        return width - counts[0] if counts else 0

    assert [lower(width) for width in (64, 48, 36, 24, 16)] == [48, 24, 24, 12, 0]


def test_a_layer_that_reads_only_the_first_units_keeps_one_whatever_goes():
    whole = Member("layer", "out", torch.arange(8), torch.arange(8), torch.arange(8))
    few = Member("reader", "in", torch.arange(2), torch.arange(2), torch.arange(2))
    group = Group("layer", (whole, few), (Gate("layer", "layer"),), torch.arange(8))
    allowed = AllowedWidths(multiple=4, min_channels={("layer", "layer"): 1})
    for order, expected in (([2, 3, 4, 5, 6, 7, 0, 1], [4]), ([0, 1, 2, 3, 4, 5, 6, 7], [])):
        assert allowed.counts(group, torch.tensor(order), {"layer": 8}) == expected


def test_units_of_several_sizes_are_counted_in_channels():
    unit = torch.tensor([0, 0, 1, 1, 2, 3, 4])
    member = Member("layer", "out", torch.arange(7), torch.arange(7), unit)
    group = Group("layer", (member,), (Gate("layer", "layer"),), torch.arange(5))
    allowed = AllowedWidths(multiple=2, min_channels={("layer", "layer"): 2})
    gone = {
        order: allowed.counts(group, torch.tensor(order), {"layer": 7})[0]
        for order in ((0, 1, 2, 3, 4), (2, 3, 4, 0, 1), (0, 1, 3, 2, 4))
    }
    # 7 channels: 5, 3, 2 are left after the first ones, 6 and no even number but 4 after others
    assert gone == {(0, 1, 2, 3, 4): 3, (2, 3, 4, 0, 1): 1, (0, 1, 3, 2, 4): 3}
    assert allowed.room(group) == 2


class Uneven(nn.Module):
    """Each unit of one group is made by two layers, one of which has only the first two."""

    def __init__(self) -> None:
        super().__init__()
        self.both = nn.Conv2d(1, 8, 1)
        self.large = nn.Conv2d(1, 2, 3, padding=1)
        self.small = nn.Conv2d(1, 6, 1)
        self.head = nn.Conv2d(8, 4, 1)

    def forward(self, x):
        x = (self.both(x) + torch.cat([self.large(x), self.small(x)], 1)).relu()
        return self.head(x).mean((2, 3))


@pytest.mark.parametrize(
    "changes",
    [{"step": 1}, {"step": 5}, {"objective": "params"}, {"objective": "macs"}, {"round_to": 2}],
    ids=str,
)
def test_no_layer_is_emptied_whatever_the_budget(trained, changes):
    torch.manual_seed(0)
    model = Uneven().eval()
    example = next(iter(trained[1].calibration.batches))[0]
    groups, _ = find_groups(model, example)
    assert {gate.layer for group in groups for gate in group.gates} == {"both", "large", "small"}
    options = Options(max_drop=100, confidence=0.5, oracle_k=3, **changes)
    _, slim = search(model, groups, trained[1], options)
    assert min(output_channels(slim).values()) >= 1
    assert slim(example).isfinite().all()
