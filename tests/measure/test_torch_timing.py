"""Layer times, pairs and whole networks in PyTorch, on the CPU as the device."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from slimnet.errors import InputError, ProofError
from slimnet.measure import measure_torch_latency, profile_torch_layers, torch_latency
from slimnet.measure.pair_timers import pair_timer
from slimnet.search.cost import widths_of

pytestmark = pytest.mark.alone


class Unhappy(nn.Module):
    """Runs nowhere."""

    def forward(self, x):
        raise TypeError("can't convert cuda:0 device type tensor to numpy\nadvice in a second line")


def state_of(model):
    return (
        {name: value.clone() for name, value in model.state_dict().items()},
        [(m.training, len(m._forward_pre_hooks)) for m in model.modules()],
    )


def same(one, other):
    return one[1] == other[1] and all(torch.equal(v, other[0][k]) for k, v in one[0].items())


def test_every_layer_has_its_time_and_the_model_is_not_changed(residual, images):
    before = state_of(residual)
    times = profile_torch_layers(residual, images, "cpu")
    assert set(times) == {"", *widths_of(residual)}
    assert all(time >= 0 for time in times.values())
    assert same(state_of(residual), before)


def test_time_goes_to_the_layer_that_took_it():
    model = nn.Sequential(nn.Linear(8, 2048), nn.Linear(2048, 2048), nn.Linear(2048, 8)).eval()
    times = profile_torch_layers(model, torch.randn(8, 8), "cpu")
    assert max(times, key=times.get) == "1"


def test_a_layers_time_holds_what_stands_behind_it():
    class Slow(nn.Module):
        def forward(self, x):
            for _ in range(200):
                x = x.sin()
            return x

    model = nn.Sequential(nn.Linear(64, 64), Slow(), nn.Linear(64, 64)).eval()
    times = profile_torch_layers(model, torch.randn(8, 64), "cpu")
    assert times["0"] > 3 * times["2"]
    assert times["0"] > 3 * times[""]


def test_a_network_that_does_not_run_there_is_refused_in_one_line():
    with pytest.raises(InputError, match="does not run in PyTorch on cpu: TypeError") as refused:
        profile_torch_layers(Unhappy(), torch.zeros(1, 2), "cpu")
    assert "second line" not in str(refused.value)
    with pytest.raises(ProofError, match="cannot run on cpu: TypeError"):
        measure_torch_latency(Unhappy(), Unhappy(), torch.zeros(1, 2), (1,), 10, device="cpu")


def test_smaller_network_is_faster_and_neither_is_changed():
    networks = [nn.Sequential(*[nn.Linear(256, 256) for _ in range(n)]).eval() for n in (24, 2)]
    before = [state_of(network) for network in networks]
    example = torch.randn(2, 256)
    results = measure_torch_latency(*networks, example, (1, 3), 10, device="cpu")
    assert [(r.runtime, r.batch_size, r.threads) for r in results] == [
        ("torch-cpu", 1, 1),
        ("torch-cpu", 3, 1),
    ]
    assert all(r.speedup > 2 and r.measurable for r in results)
    assert all(len(r.original_samples_ms) == len(r.slim_samples_ms) == 10 for r in results)
    assert all(same(state_of(n), b) for n, b in zip(networks, before, strict=True))


@pytest.mark.parametrize(("works", "expected"), [("both", 2), ("first", 1), ("none", 1)])
def test_a_graph_is_timed_only_where_both_can_be_captured(monkeypatch, works, expected):
    def capture(network, batch, device):
        captured = works == "both" or (works == "first" and network[0].out_features == 8)
        return torch_latency._eager(network, batch, device) if captured else None

    monkeypatch.setattr(torch_latency, "_captured", capture)
    first, second = (nn.Sequential(nn.Linear(4, n)) for n in (8, 6))
    results = measure_torch_latency(
        first, second, torch.zeros(1, 4), (1,), 10, seconds_per_batch=0.01, device="cpu"
    )
    assert [r.runtime for r in results] == ["torch-cpu", "torch-cpu-graph"][:expected]


def test_a_failed_capture_is_no_failure(monkeypatch):
    waited = []
    monkeypatch.setattr(torch_latency, "wait", waited.append)

    def fail(network, batch):
        raise RuntimeError("operation not permitted when stream is capturing")

    monkeypatch.setattr(torch_latency, "_capture", fail)
    assert torch_latency._captured(nn.Identity(), torch.zeros(1), "cuda") is None
    assert waited == ["cuda"]

    class Graph:
        def replay(self):
            waited.append("replay")

    monkeypatch.setattr(torch_latency, "_capture", lambda network, batch: Graph())
    torch_latency._captured(nn.Identity(), torch.zeros(1), "cuda")()
    assert waited == ["cuda", "replay", "cuda"], "a run ends when the device is done"
    assert torch_latency._captured(nn.Identity(), torch.zeros(1), "cpu") is None


@pytest.mark.parametrize("runtime", ["torch-cpu", "onnxruntime-cpu"])
def test_a_wider_pair_takes_longer_and_no_random_number_is_drawn(runtime):
    before = copy.deepcopy(torch.get_rng_state())
    narrow, wide = (pair_timer(width, runtime, 1) for width in (4, 128))
    assert min(wide() for _ in range(5)) > 2 * min(narrow() for _ in range(5))
    assert torch.equal(torch.get_rng_state(), before)
