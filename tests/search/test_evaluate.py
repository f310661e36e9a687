"""Every unit is scored by every metric, in one pass over the images."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from slimnet.execution.layout import Layout, lay_out
from slimnet.execution.running import RunningNetwork
from slimnet.groups.find import find_groups
from slimnet.saliency.metrics import score_units
from slimnet.saliency.statistics import gather_statistics
from slimnet.search.evaluate import rank
from slimnet.search.state import State


@pytest.fixture
def found(trained):
    model, splits = trained
    groups, _ = find_groups(model, splits.calibration.batches[0][0][:2])
    return State(RunningNetwork(model), groups, {}, {}), lay_out(
        splits.calibration, layout=Layout(images=8)
    )


def test_metrics_without_gradients_need_no_backward_pass(found, monkeypatch):
    state, calibration = found
    monkeypatch.setattr(torch.autograd, "grad", None)
    rank(state, calibration.batches, ["mean_activation", "l1_weight"])


def test_a_layer_of_two_groups_is_counted_once():
    torch.manual_seed(0)
    model, inputs = Concatenated().eval(), torch.randn(6, 1, 8, 8)
    groups, _ = find_groups(model, inputs)
    assert sum(gate.layer == "depthwise" for group in groups for gate in group.gates) == 2
    batches = [(inputs, torch.tensor([0, 1, 2, 3, 0, 1]))]
    gates = list({gate for group in groups for gate in group.gates})
    statistics, _ = gather_statistics(model, gates, batches)
    name = "taylor_second_order"
    got = rank(State(RunningNetwork(model), groups, {}, {}), batches, [name]).scores[name]
    assert torch.allclose(got, score_units(groups, statistics, [name])[name])


class Concatenated(nn.Module):
    """A depthwise convolution behind a concatenation: it is in the groups of both branches."""

    def __init__(self):
        super().__init__()
        self.left, self.right = nn.Conv2d(1, 4, 3), nn.Conv2d(1, 6, 3)
        self.depthwise = nn.Conv2d(10, 10, 3, groups=10)
        self.head = nn.Conv2d(10, 4, 1)

    def forward(self, x):
        x = self.depthwise(torch.cat((self.left(x), self.right(x)), 1).relu())
        return self.head(x.relu()).mean((2, 3))
