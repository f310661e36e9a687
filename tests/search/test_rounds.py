"""The search in rounds: how much distance each try allows, and how a search ends."""

import pytest
import torch
from torch import nn

from slimnet.execution import NoChannels
from slimnet.groups import find_branches, find_groups
from slimnet.options import Options
from slimnet.records import Split, Splits
from slimnet.search import search
from slimnet.search.rounds import MAX_GROWTH, SHARE_OF_BUDGET, Tries, Try


def test_what_used_little_of_the_budget_lets_the_next_try_grow_fast_but_not_without_limit():
    tries = Tries(start=0.0, aim=4.5, allowed=0.02)
    tries.fits(Try(nats=0.02, saved=1.0, points=0.0))
    assert tries.allowed == pytest.approx(0.02 * MAX_GROWTH)
    tries.fits(Try(nats=0.04, saved=2.0, points=1.5))
    # 1.5 points for the last 0.02: twice as much is left
    assert tries.allowed == pytest.approx(0.08)


def test_between_what_fits_and_what_does_not_the_next_try_goes_by_the_points():
    tries = Tries(start=0.0, aim=4.0, allowed=0.02)
    tries.fits(Try(nats=0.1, saved=1.0, points=2.0))
    tries.breaks(Try(nats=0.2, saved=2.0, points=6.0))
    assert tries.allowed == pytest.approx(0.15)
    tries.breaks(Try(nats=0.2, saved=2.0, points=1000.0))
    assert tries.allowed == pytest.approx(0.12)


@pytest.mark.parametrize(("high", "left"), [(None, 0.05), (Try(0.13, 2.0, 6.0), 0.03)])
def test_the_next_round_allows_a_share_of_what_is_left(high, left):
    tries = Tries(start=0.0, aim=4.0, allowed=0.02, high=high)
    tries.fits(Try(nats=0.1, saved=1.0, points=4.0))
    assert tries.allowed_next_round(6.0) == pytest.approx(SHARE_OF_BUDGET * left)


class OneBlock(nn.Module):
    """A block whose channels are the network's only group."""

    def __init__(self):
        super().__init__()
        self.inner, self.outer = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 3, 3, padding=1)
        self.linear = nn.Linear(3, 4)

    def forward(self, x):
        return self.linear((x + self.outer(torch.relu(self.inner(x)))).mean((2, 3)))


def test_a_search_ends_where_all_groups_went_with_their_branches():
    torch.manual_seed(0)
    model, images = OneBlock().eval(), torch.randn(40, 3, 6, 6)
    with torch.no_grad():
        labels = model(images).argmax(1)
    parts = [Split(name, 40, [(images, labels)]) for name in ("calibration", "selection", "test")]
    splits = Splits(*parts, description="random", classes=None, preprocessing={})
    groups, _ = find_groups(model, images[:2])
    branches, _ = find_branches(model, groups, images[:2])
    options = Options(max_drop=100, confidence=0.5, objective="macs")
    trajectory, slim = search(model, groups, splits, options, branches=branches)
    assert isinstance(slim.inner, NoChannels)
    assert trajectory.stopped_because == "no group has a lower width that fits the budget"
