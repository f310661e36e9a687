"""Layer times come from where the network will run."""

from __future__ import annotations

import sys

import pytest
import torch
from torch import nn

from slimnet.export import PROFILE_IMAGES, layer_timer, trace
from slimnet.settings import Settings

EXAMPLE = torch.arange(6.0).reshape(2, 3)
BATCH = EXAMPLE.repeat(PROFILE_IMAGES // 2, 1)


@pytest.fixture
def seen(monkeypatch):
    """What the profilers were called with."""
    calls = []
    module = sys.modules[layer_timer.__module__]
    for name in ("profile_layers", "profile_torch_layers"):
        monkeypatch.setattr(
            module, name, lambda *given, name=name: calls.append((name, *given)) or {"": 1.0}
        )
    export = module.export_onnx

    def exported(*given, **more):
        calls.append(given)
        export(*given, **more)

    monkeypatch.setattr(module, "export_onnx", exported)
    return calls


def timer(model, **settings):
    return layer_timer(trace(model, EXAMPLE, 20), Settings(**settings))


def test_onnx_runtime_profiles_the_exported_network(seen):
    model = nn.Linear(3, 2)
    times = timer(model, runtime="ort-cuda", threads=3)(model)
    ((name, _, batch, threads, runtime),) = seen
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


def test_a_narrower_network_is_not_translated(seen):
    def network(width):
        return nn.Sequential(nn.Linear(3, width), nn.Tanh(), nn.Linear(width, 2)).eval()

    time_layers = timer(network(6), runtime="ort-cpu")
    for width in (6, 4, 2):
        time_layers(network(width))
    assert [call[0] for call in seen] == ["profile_layers"] * 3


def test_what_cannot_be_written_into_the_file_of_the_original_is_translated(seen):
    other = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2))
    timer(nn.Linear(3, 2), runtime="ort-cpu")(other)
    assert [call[0] for call in seen] == [other, "profile_layers"]
