"""NaN tracing finds the groups that the dependency graph finds, and more."""

from __future__ import annotations

import itertools

import pytest
import torch
import torchvision
from random_layers import Heads
from torch import nn

from slimnet.groups.build import build_group
from slimnet.groups.find import _from_graph, find_groups
from slimnet.groups.graph import NotFollowedError
from slimnet.groups.nan_tracing import NanTracer, different_halves


def everything(group):
    return sorted(
        (m.module, m.direction, m.index.tolist(), m.unit.tolist(), m.norm) for m in group.members
    )


def found_by_tracing(model, images, layer):
    tracer = NanTracer(model, images)
    return build_group(layer, tracer.entries(layer), model, tracer.norm_after)


def test_tracing_finds_the_same_groups_as_the_graph(residual, images):
    groups = _from_graph(residual, images).groups
    by_name = {group.name: group for group in groups}
    for name in ("inner", "wide", "hidden"):
        assert everything(found_by_tracing(residual, images, name)) == everything(by_name[name])


def test_tracing_finds_the_same_norms_as_the_graph():
    torch.manual_seed(0)
    model, images = torchvision.models.mobilenet_v2().eval(), torch.randn(2, 3, 32, 32)
    groups = _from_graph(model, images).groups
    inner = [g for g in groups if g.name.endswith("conv.0.0") and len(g.gates) == 2]
    tracer = NanTracer(model, images)
    assert len(inner) > 10
    for group in inner:
        found = build_group(group.name, tracer.entries(group.name), model, tracer.norm_after)
        assert everything(found) == everything(group)


def test_mixed_channels_match_no_code(residual, images):
    # the sum of stem and outer: no input channel reads either of them alone
    with pytest.raises(NotFollowedError, match="one by one"):
        NanTracer(residual, images).entries("outer")


def test_no_half_contains_another():
    codes = different_halves(70)
    assert codes.shape == (8, 70)
    for one, other in itertools.permutations(range(70), 2):
        assert not bool((codes[:, one] <= codes[:, other]).all())


class Folded(nn.Module):
    """Parts of each image stand in the batch, as windows do; and a layer that sees no image."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 1)
        self.wide = nn.Linear(8, 12)
        self.narrow = nn.Linear(12, 8)
        self.table = nn.Linear(2, 8)
        self.head = nn.Linear(8, 4)

    def forward(self, x):
        n, _, h, w = x.shape
        x = self.stem(x).permute(0, 2, 3, 1).reshape(n * h, w, 8)
        x = x + self.narrow(self.wide(x).relu())
        places = self.table(torch.ones(w, 2, dtype=x.dtype))
        return self.head((x + places).reshape(n, h, w, 8).mean((1, 2)))


def test_parts_of_images_in_the_batch(images):
    torch.manual_seed(0)
    group = found_by_tracing(Folded().eval(), images, "wide")
    assert [(m.module, m.direction) for m in group.members] == [("wide", "out"), ("narrow", "in")]


class Turned(nn.Module):
    """An order of channels that the graph does not see, and that every removal keeps."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 8, 1)
        self.second = nn.Conv2d(8, 6, 1)
        self.head = nn.Linear(6, 4)

    def forward(self, x):
        return self.head(self.second(self.first(x).relu().flip(1)).mean((2, 3)))


def test_what_the_graph_follows_wrongly_is_found_by_tracing(images):
    torch.manual_seed(0)
    groups, frozen = find_groups(Turned().eval(), images)
    assert {group.name for group in groups} == {"first", "second"}
    assert [f.layer for f in frozen] == ["head"]
    sides = {(m.module, m.direction): m for g in groups for m in g.members}
    reader = sides["second", "in"]
    assert reader.index.tolist() == [7 - unit for unit in reader.unit.tolist()]


def test_a_network_whose_graph_cannot_be_built_is_slimmed_where_tracing_can_follow():
    torch.manual_seed(0)
    model = torchvision.models.shufflenet_v2_x0_5().eval()
    groups, frozen = find_groups(model, torch.randn(2, 3, 32, 32))
    inner = {f"stage{s}.{b}.branch2.0" for s, n in ((2, 4), (3, 8), (4, 4)) for b in range(n)}
    assert inner <= {group.name for group in groups}
    reasons = {f.layer: f.reason for f in frozen}
    stream = next(
        group for group in groups if "stage2.1.branch2.5" in {g.layer for g in group.gates}
    )
    assert stream.units > 1, "halves and shuffles of four blocks leave some freedom"
    assert "shuffle" in reasons["stage3.1.branch2.5"], "those of eight blocks leave none"
    assert reasons["fc"]


def test_where_the_graph_forgets_which_channels_go_together_none_are_cut():
    network = nn.Sequential(Heads(3, 3, 1, "fixed"), nn.Flatten(), nn.Linear(192, 4))
    groups, frozen = find_groups(network.eval(), torch.randn(2, 3, 8, 8), layers="all")
    mixed = {entry.layer for entry in frozen} - {"2"}
    assert mixed | {gate.layer for group in groups for gate in group.gates} == {
        "0.q", "0.k", "0.v", "0.out"
    }  # fmt: skip
