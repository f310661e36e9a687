"""Layer times come from where the network will run, and only from there."""

from __future__ import annotations

import json

import onnx
import pytest
import torch
from torch import nn

from slimnet.export.layer_timer import FILE, PROFILE_IMAGES, layer_timer
from slimnet.export.onnx_file import translate
from slimnet.options import Options
from slimnet.timing import RUNTIMES
from slimnet.timing.onnx_runtime import OnnxRuntime
from slimnet.timing.pytorch import PyTorch

EXAMPLE = torch.arange(6.0).reshape(2, 3)
BATCH = EXAMPLE.repeat(PROFILE_IMAGES // 2, 1)


class Scripted(OnnxRuntime):
    """ONNX Runtime that notes the shapes of the files' weights, and takes the times from a list."""

    def layer_times(self, networks, batch, threads):
        assert torch.equal(batch, BATCH)
        self.seen.append([shapes(network.onnx) for network in networks])
        return self.times.pop(0) if self.times else [{"": 1.0}, {"": 1.0}]


@pytest.fixture(autouse=True)
def _empty_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))


@pytest.fixture
def scripted(monkeypatch):
    runtime = Scripted("ort-cpu", "onnxruntime-cpu", "cpu", "none")
    runtime.__dict__.update(seen=[], times=[])
    monkeypatch.setitem(RUNTIMES, "ort-cpu", runtime)
    return runtime


def shapes(file):
    return {value.name: tuple(value.dims) for value in onnx.load(file).graph.initializer}


def timer(model, **options):
    return layer_timer(translate(model, EXAMPLE, 20), Options(**options))


def network(width):
    torch.manual_seed(width)
    return nn.Sequential(nn.Linear(3, width), nn.Tanh(), nn.Linear(width, 2)).eval()


def test_onnx_runtime_times_the_layers_of_the_exported_network():
    model = network(6)
    times = timer(model)(model)
    assert {"0", "2"} <= set(times)
    assert all(milliseconds > 0 for milliseconds in times.values())


def test_pytorch_times_the_network_itself_and_translates_nothing(monkeypatch):
    monkeypatch.setitem(RUNTIMES, "torch-cuda", PyTorch("torch-cuda", "torch-cuda", "cpu"))
    time_layers = timer(network(6), runtime="torch-cuda")
    monkeypatch.setattr("slimnet.export.onnx_file.trace", None)
    assert {"0", "2"} <= set(time_layers(network(4)))


def test_the_original_runs_beside_the_slim_network(scripted):
    time_layers = timer(network(6))
    for width in (6, 4, 2):
        time_layers(network(width))
    assert [original["2.weight"] for original, _ in scripted.seen] == [(2, 6)] * 3
    assert [slim["2.weight"] for _, slim in scripted.seen] == [(2, 6), (2, 4), (2, 2)]


def test_a_narrower_network_is_not_translated_again(scripted, monkeypatch):
    time_layers = timer(network(6))
    monkeypatch.setattr("slimnet.export.onnx_file.trace", None)
    time_layers(network(4))
    assert scripted.seen[0][1]["2.weight"] == (2, 4)


def test_a_network_unlike_the_known_file_is_translated_and_known_then(scripted, monkeypatch):
    time_layers = timer(nn.Linear(3, 2))
    time_layers(network(6))
    monkeypatch.setattr("slimnet.export.onnx_file.trace", None)
    time_layers(network(4))
    assert [slim["2.weight"] for _, slim in scripted.seen] == [(2, 6), (2, 4)]


@pytest.mark.parametrize(("now_ms", "scaled"), [(3.0, 2.0), (6.0, 1.0), (0.0, 2.0)])
def test_on_a_machine_that_has_become_slower_all_times_count_for_less(scripted, now_ms, scaled):
    scripted.times[:] = [
        [{"": 1.0, "0": 2.0}, {"0": 2.0}],
        [{"": now_ms}, {"0": 2.0}],
    ]
    time_layers = timer(network(6))
    assert [time_layers(network(width)) for width in (6, 4)] == [{"0": 2.0}, {"0": scaled}]


def retrained(width):
    model = network(width)
    with torch.no_grad():
        model[0].weight.mul_(1.5)
    return model


def test_what_this_machine_measured_before_is_not_timed_again(scripted):
    scripted.times[:] = [[{"": 3.0}, {"0": 2.0}], [{"": 6.0}, {"0": 2.0}]]
    first = timer(network(6))
    found = [first(network(width)) for width in (6, 4)]
    assert found == [{"0": 2.0}, {"0": 1.0}]
    again = timer(retrained(6))  # a new process, and other weights
    assert [again(retrained(width)) for width in (6, 4)] == found
    assert len(scripted.seen) == 2
    # what is timed now counts at the speed of the machine at the first call
    scripted.times[:] = [[{"": 1.5}, {"0": 1.0}]]
    assert again(network(2)) == {"0": 2.0}


def test_pytorchs_times_are_cached_too(monkeypatch):
    monkeypatch.setitem(RUNTIMES, "torch-cuda", PyTorch("torch-cuda", "torch-cuda", "cpu"))
    found = timer(network(6), runtime="torch-cuda")(network(4))
    monkeypatch.setattr(PyTorch, "layer_times", None)
    assert timer(network(6), runtime="torch-cuda")(network(4)) == found


@pytest.mark.parametrize(
    ("model", "options"),
    [(network(6), {"threads": 2}), (network(6), {"cache": False}), (network(5), {}),
     (nn.Sequential(nn.Linear(3, 6), nn.Sigmoid(), nn.Linear(6, 2)).eval(), {})],
)  # fmt: skip
def test_other_networks_and_threads_are_timed_and_all_without_the_cache(scripted, model, options):
    timer(network(6))(network(6))
    scripted.times[:] = [[{"": 1.0}, {"": 4.0}]]
    assert timer(model, **options)(model) == {"": 4.0}
    # and that is what the next run finds
    assert timer(model, **{**options, "cache": True})(model) == {"": 4.0}


def test_a_broken_cache_is_an_empty_one(scripted, tmp_path):
    (tmp_path / "slimnet").mkdir()
    for text in ("{", "[]", "{}"):
        (tmp_path / "slimnet" / FILE).write_text(text)
        timer(network(6))(network(6))
    content = json.loads((tmp_path / "slimnet" / FILE).read_text())
    (tmp_path / "slimnet" / FILE).write_text(json.dumps({key: {"layers_ms": 1} for key in content}))
    timer(network(6))(network(6))
    assert len(scripted.seen) == 4
    timer(network(6))(network(6))
    assert len(scripted.seen) == 4
