"""Layer times come from where the network will run."""

from __future__ import annotations

import sys

import onnx
import pytest
import torch
from torch import nn

from slimnet.export import PROFILE_IMAGES, layer_timer, translate
from slimnet.settings import Settings

EXAMPLE = torch.arange(6.0).reshape(2, 3)
BATCH = EXAMPLE.repeat(PROFILE_IMAGES // 2, 1)


@pytest.fixture
def seen(monkeypatch):
    """What the profilers were called with, of files the shapes of their weights."""
    calls = []
    module = sys.modules[layer_timer.__module__]

    def profile_layers(files, *given):
        calls.append(("profile_layers", *map(shapes, files), *given))
        return [{"": 1.0}, {"": 1.0}]

    def profile_torch_layers(*given):
        calls.append(("profile_torch_layers", *given))
        return {"": 1.0}

    def translate_again(*given):
        calls.append(("translate", *given))
        return translate(*given)

    for function in (profile_layers, profile_torch_layers):
        monkeypatch.setattr(module, function.__name__, function)
    monkeypatch.setattr(module, "translate", translate_again)
    return calls


def shapes(file):
    return {value.name: tuple(value.dims) for value in onnx.load(file).graph.initializer}


def timer(model, **settings):
    return layer_timer(translate(model, EXAMPLE, 20), Settings(**settings))


def test_onnx_runtime_profiles_the_exported_network(seen):
    model = nn.Linear(3, 2)
    times = timer(model, runtime="ort-cuda", threads=3)(model)
    ((name, original, weights, batch, threads, runtime),) = seen
    assert original == weights == {"weight": (2, 3), "bias": (2,)}
    assert (name, threads, runtime) == ("profile_layers", 3, "onnxruntime-cuda")
    assert torch.equal(torch.from_numpy(batch[0]), BATCH)
    assert times == {"": 1.0}


def test_pytorch_profiles_the_network_itself(seen):
    model = nn.Linear(3, 2)
    assert timer(model, runtime="torch-cuda")(model) == {"": 1.0}
    ((name, network, batch),) = seen
    assert name == "profile_torch_layers"
    assert network is model
    assert torch.equal(batch, BATCH)


def network(width):
    torch.manual_seed(width)
    return nn.Sequential(nn.Linear(3, width), nn.Tanh(), nn.Linear(width, 2)).eval()


def test_a_narrower_network_is_not_translated(seen):
    time_layers = timer(network(6), runtime="ort-cpu")
    for width in (6, 4, 2):
        time_layers(network(width))
    assert [call[0] for call in seen] == ["profile_layers"] * 3
    assert [call[1]["2.weight"] for call in seen] == [(2, 6)] * 3, "the original runs beside it"
    assert [call[2]["2.weight"] for call in seen] == [(2, 6), (2, 4), (2, 2)]


def test_what_cannot_be_written_into_a_known_file_is_translated_and_known_then(seen):
    time_layers = timer(nn.Linear(3, 2), runtime="ort-cpu")
    for width in (6, 4):
        time_layers(network(width))
    assert [call[0] for call in seen] == ["translate", "profile_layers", "profile_layers"]
    assert seen[2][2]["2.weight"] == (2, 4)


@pytest.mark.parametrize(("now_ms", "expected"), [(3.0, 2.0), (6.0, 1.0), (0.0, 2.0)])
def test_on_a_machine_that_has_become_slower_all_times_count_for_less(
    monkeypatch, now_ms, expected
):
    found = [[{"": 1.0, "0": 2.0}, {"0": 2.0}], [{"": now_ms}, {"0": 2.0}]]
    module = sys.modules[layer_timer.__module__]
    monkeypatch.setattr(module, "profile_layers", lambda *_: found.pop(0))
    time_layers = timer(network(6), runtime="ort-cpu")
    assert [time_layers(network(6)) for _ in range(2)] == [{"0": 2.0}, {"0": expected}]
