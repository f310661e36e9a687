"""How much candidates save in weights, MACs and milliseconds, and the time that is predicted."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from slimnet.execution.running import RunningNetwork
from slimnet.execution.size import measure_size
from slimnet.groups.cut import slim_copy
from slimnet.groups.find import find_groups
from slimnet.groups.group import plan_for
from slimnet.options import Options
from slimnet.records.measured import PredictedLatency
from slimnet.search import objective
from slimnet.search.candidates import Proposal
from slimnet.search.journal import Journal
from slimnet.search.latency_table import LatencyTable, Width, widths_of
from slimnet.search.objective import choose_objective, macs_cost, saved_by, weights_cost
from slimnet.search.state import State
from slimnet.search.widths import AllowedWidths


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
    assert table.cost("inner", Width(0, 8)) == table.cost("inner", Width(8, 0)) == 0.0


@pytest.fixture
def half(residual, images):
    """The network with half of its units."""
    groups, _ = find_groups(residual, images, layers="all")
    return slim_copy(residual, plan_for(groups, [torch.arange(g.units // 2) for g in groups]))


def test_the_table_predicts_and_counts_its_corrections(residual, half):
    times = {"inner": 2.0, "depthwise": 1.0, "": 0.5}
    timed = []

    def time_layers(network):
        timed.append(network)
        return dict(times)

    table = LatencyTable(time_layers, residual)
    assert table.prediction(residual) == PredictedLatency(3.5, 3.5, 0)
    # inner: half of its inputs and half of its outputs; depthwise: half of its channels
    assert table.prediction(half) == PredictedLatency(3.5, 0.5 + 2.0 / 4 + 1.0 / 2, 0)
    times.update(inner=1.5)
    table.refresh(residual)
    table.refresh(half)
    assert timed == [residual, half], "again only where the network has become much faster"
    assert table.prediction(half) == PredictedLatency(3.5, 3.0, 1)


def test_only_an_objective_that_counts_time_predicts(trained, monkeypatch):
    monkeypatch.setattr(objective, "measure_paying_widths", lambda *_: (4, 8))
    model, splits = trained
    batches = splits.calibration.batches
    groups, _ = find_groups(model, batches[0][0][:2])
    for name, expected in (("latency", PredictedLatency(3.1, 3.1, 0)), ("macs", None)):
        made = choose_objective(
            model, groups, batches, Options(objective=name),
            lambda network: {"0": 1.0, "3": 2.0, "": 0.1}, Journal(),
        )  # fmt: skip
        assert made.prediction(model) == expected


def test_without_a_cost_each_unit_saves_one(trained):
    model, splits = trained
    groups, _ = find_groups(model, splits.calibration.batches[0][0][:2])
    state = State(RunningNetwork(model), groups, {}, {})
    made = objective.Objective(AllowedWidths(), cost=None)
    assert made.savings(state, [Proposal("any", (torch.arange(2), torch.arange(1)))]) == [3.0]
