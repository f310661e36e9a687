"""Which widths pay, and layer times inside a whole network."""

from __future__ import annotations

import numpy
import pytest
import torch
from torch import nn

from slimnet.export import export_onnx
from slimnet.measure import (
    measure_paying_widths,
    narrow_widths,
    next_lower_width,
    profile_layers,
    width_in_effect,
)
from slimnet.measure.paying_widths import choose_widths


def test_a_staircase_pays_at_its_edges():
    widths = list(range(32, 0, -4))
    times = [-(-w // 8) * 1.0 for w in widths]  # computed in blocks of 8
    assert choose_widths(widths, times) == (8, 16, 24, 32)


@pytest.mark.parametrize("noise", [0.0, 0.03, -0.03])
def test_where_time_does_not_depend_on_the_width_none_is_better_than_another(noise):
    widths = list(range(32, 0, -4))
    times = [1 + noise * (-1) ** number for number in range(len(widths))]
    assert choose_widths(widths, times) == tuple(range(4, 33, 4))


def test_a_slope_pays_everywhere():
    widths = list(range(32, 0, -4))
    assert choose_widths(widths, [float(w) for w in widths]) == tuple(range(4, 33, 4))


@pytest.mark.parametrize(
    ("width", "paying", "lower"),
    [(20, (8, 16, 32), 16), (16, (8, 16, 32), 8), (8, (8, 16), 0), (200, (16, 112, 128), 192),
     (192, (16, 112, 128), 176), (129, (16, 112, 128), 128), (7, (), 6)],
)  # fmt: skip
def test_next_lower_width(width, paying, lower):
    assert next_lower_width(width, paying) == lower


def test_this_machines_paying_widths_are_sane():
    paying = measure_paying_widths("onnxruntime-cpu", 1)
    assert paying == tuple(sorted(set(paying)))
    assert paying[-1] == 128
    assert paying[0] >= 4


@pytest.mark.alone
def test_profile_names_the_layers_of_the_pytorch_network(tmp_path):
    model = nn.Sequential(
        nn.Conv2d(3, 16, 3), nn.BatchNorm2d(16), nn.ReLU(), nn.Conv2d(16, 32, 3), nn.ReLU(),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(32, 8), nn.ReLU(), nn.Linear(8, 4),
    ).eval()  # fmt: skip
    file = tmp_path / "network.onnx"
    export_onnx(model, torch.randn(2, 3, 32, 32), file, 20, {}, check_batches=())
    batch = numpy.zeros((4, 3, 32, 32), numpy.float32)
    times, again = profile_layers([file, file], [batch], 1, "onnxruntime-cpu")
    assert set(again) == set(times)
    assert {"0", "3", "7", "9"} <= set(times)
    assert times["3"] > times["9"]
    assert all(t >= 0 for t in times.values())
    assert set(times) <= {"0", "3", "7", "9", ""}


def test_profile_names_the_linear_layers_on_tokens(tmp_path):
    model = nn.Sequential(nn.Linear(8, 64, bias=False), nn.GELU(), nn.Linear(64, 8)).eval()
    file = tmp_path / "network.onnx"
    export_onnx(model, torch.randn(2, 50, 8), file, 20, {}, check_batches=())
    batch = numpy.zeros((4, 50, 8), numpy.float32)
    (times,) = profile_layers([file], [batch], 1, "onnxruntime-cpu")
    assert {"0", "2"} <= set(times)


@pytest.mark.parametrize(
    ("width", "effect"), [(1, 8), (8, 8), (9, 16), (17, 32), (33, 48), (48, 48), (0, 0)]
)
def test_a_width_costs_as_much_as_the_next_one_that_pays(width, effect):
    assert width_in_effect(width, (8, 16, 32)) == effect
    assert width_in_effect(width, ()) == width


def test_below_one_block_inputs_count_in_fours():
    # of 16 inputs, 12 cost as many as 15, 8 as 11 and 4 as 7; of 8, 4 cost as many as 7
    assert narrow_widths((4, 16, 32, 48)) == ((4, 8, 16, 32, 48), (16, 32, 48))
    assert narrow_widths((8, 16, 24)) == ((8, 16, 24), (8, 16, 24))
    assert narrow_widths(()) == ((), ())
