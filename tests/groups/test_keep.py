"""Layers that the user wants kept whole: what is frozen with them, why, and patterns refused."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from slimnet.errors import InputError
from slimnet.groups.find import find_groups, keep_layers


class Concatenated(nn.Module):
    """A depthwise convolution behind a concatenation: it is in the groups of both branches."""

    def __init__(self) -> None:
        super().__init__()
        self.left = nn.Conv2d(1, 9, 3, padding=1)
        self.right = nn.Conv2d(1, 16, 3, padding=1)
        self.depthwise = nn.Conv2d(25, 25, 3, padding=1, groups=25)
        self.head = nn.Conv2d(25, 4, 1)

    def forward(self, x):
        x = self.depthwise(torch.cat((self.left(x), self.right(x)), 1).relu())
        return self.head(x.relu()).mean((2, 3))


@pytest.fixture
def found(residual, images):
    return find_groups(residual, images, layers="all")


def test_a_kept_layer_freezes_its_group_and_says_with_whom_the_others_are_coupled(found):
    groups, frozen = keep_layers(*found, ["out*"])
    assert {g.name for g in found[0]} - {g.name for g in groups} == {"stem"}
    assert {(f.layer, f.channels, f.reason) for f in frozen if f not in found[1]} == {
        ("outer", 8, "kept as asked (--keep out*)"),
        ("stem", 8, "coupled to outer, kept as asked (--keep out*)"),
    }


def test_every_layer_is_either_open_or_frozen_once(found):
    for patterns in ([], ["wide", "inner"], ["*"], ["depthwise"], ["head"]):
        groups, frozen = keep_layers(*found, patterns)
        layers = [g.layer for group in groups for g in group.gates] + [f.layer for f in frozen]
        assert sorted(layers) == sorted({"stem", "inner", "outer", "wide", "depthwise", "grouped",
                                         "hidden", "head"})  # fmt: skip
        assert groups == [g for g in found[0] if g in groups], "as they were, in their order"


def test_without_a_wish_or_for_a_layer_that_is_frozen_anyhow_nothing_changes(found):
    assert keep_layers(*found, []) == found
    assert keep_layers(*found, ["head"]) == found


def test_the_first_pattern_that_matches_is_the_reason(found):
    _, frozen = keep_layers(*found, ["inn?r", "inner"])
    assert frozen[-1].reason == "kept as asked (--keep inn?r)"


def test_a_module_is_kept_with_everything_in_it(trained):
    model = nn.Sequential(trained[0], nn.Flatten()).eval()
    example = trained[1].calibration.batches[0][0][:2]
    groups, frozen = find_groups(model, example)
    assert [g.name for g in keep_layers(groups, frozen, ["0.0"])[0]] == ["0.3"]
    assert keep_layers(groups, frozen, ["0"])[0] == []
    assert keep_layers(groups, frozen, ["0.*"])[0] == []


def test_a_layer_in_two_groups_stays_open_while_one_of_them_is():
    torch.manual_seed(0)
    groups, frozen = find_groups(Concatenated().eval(), torch.randn(2, 1, 8, 8))
    assert [[g.layer for g in group.gates] for group in groups] == [
        ["left", "depthwise"], ["right", "depthwise"],
    ]  # fmt: skip
    left, of_left = keep_layers(groups, frozen, ["left"])
    assert [g.name for g in left] == ["right"]
    assert [f.layer for f in of_left] == ["head", "left"]
    none, of_both = keep_layers(groups, frozen, ["depthwise"])
    assert none == []
    assert {(f.layer, f.channels) for f in of_both} == {
        ("head", 4), ("left", 9), ("depthwise", 25), ("right", 16),
    }  # fmt: skip


def test_a_pattern_that_matches_no_layer_is_refused_with_the_nearest(found):
    with pytest.raises(InputError, match=r"keep 'inn\.\*' matches no layer.*nearest is 'inner'"):
        keep_layers(*found, ["stem", "inn.*"])
    with pytest.raises(InputError, match=r"'Stem' matches no layer.*'stem'"):
        keep_layers(*found, ["Stem"])
    with pytest.raises(InputError, match="keep 'norm' matches no layer"):
        keep_layers(*found, ["norm"])
