"""PyTorch as a runtime, on the CPU as the device; on CUDA with events that are made up."""

from __future__ import annotations

import time

import pytest
import torch
from torch import nn

from slimnet.errors import InputError, ProofError
from slimnet.options import Options
from slimnet.timing import latency, pytorch
from slimnet.timing.latency import measure_latency
from slimnet.timing.pytorch import PyTorch, Stopwatch, copy_to, graph_run, occupy, wait
from slimnet.timing.runtime import TimedNetwork

ON_CPU = PyTorch("torch-cpu", "torch-cpu", "cpu", graphs=True)


class Unhappy(nn.Module):
    """Runs nowhere."""

    def forward(self, x):
        raise TypeError("can't convert cuda:0 device type tensor to numpy\nadvice in a second line")


def timed(model):
    return TimedNetwork(module=lambda device: model)


def layer_times(model, example):
    return ON_CPU.layer_times([timed(model)], example, 1)[0]


@pytest.mark.alone
def test_time_goes_to_the_layer_that_took_it():
    model = nn.Sequential(nn.Linear(8, 2048), nn.Linear(2048, 2048), nn.Linear(2048, 8)).eval()
    times = layer_times(model, torch.randn(8, 8))
    assert max(times, key=times.get) == "1"


@pytest.mark.alone
def test_a_layers_time_includes_the_operations_behind_it():
    class Slow(nn.Module):
        def forward(self, x):
            for _ in range(200):
                x = x.sin()
            return x

    model = nn.Sequential(nn.Linear(64, 64), Slow(), nn.Linear(64, 64)).eval()
    times = layer_times(model, torch.randn(8, 64))
    assert times["0"] > 3 * times["2"]
    assert times["0"] > 3 * times[""]


def test_a_network_that_does_not_run_there_is_refused_in_one_line():
    with pytest.raises(InputError, match="does not run in PyTorch on cpu: TypeError") as refused:
        layer_times(Unhappy(), torch.zeros(1, 2))
    assert "second line" not in str(refused.value)
    pair = (timed(Unhappy()), timed(Unhappy()))
    with pytest.raises(ProofError, match="cannot run on cpu: TypeError"):
        measure_latency(ON_CPU, pair, torch.zeros(1, 2), (1,), Options(latency_samples=10))


@pytest.mark.alone
@pytest.mark.parametrize(("works", "ways"), [("both", 2), ("first", 1), ("none", 1)])
def test_a_graph_is_timed_only_where_both_can_be_captured(monkeypatch, works, ways):
    def capture(network, batch, device):
        captured = works == "both" or (works == "first" and network[0].out_features == 8)
        return pytorch.eager_run(network, batch, device) if captured else None

    monkeypatch.setattr(pytorch, "graph_run", capture)
    pair = tuple(timed(nn.Sequential(nn.Linear(4, n))) for n in (8, 6))
    options = Options(latency_samples=10)
    monkeypatch.setattr(latency, "MAX_SECONDS", 0.01)
    results = measure_latency(ON_CPU, pair, torch.zeros(1, 4), (1,), options)
    assert [r.runtime for r in results] == ["torch-cpu", "torch-cpu-graph"][:ways]


def test_a_failed_capture_is_no_failure(monkeypatch):
    waited = []
    monkeypatch.setattr(pytorch, "wait", waited.append)

    def fail(network, batch):
        raise RuntimeError("operation not permitted when stream is capturing")

    monkeypatch.setattr(pytorch, "capture", fail)
    assert graph_run(nn.Identity(), torch.zeros(1), "cuda") is None
    assert waited == ["cuda"]

    class Graph:
        def replay(self):
            waited.append("replay")

    monkeypatch.setattr(pytorch, "capture", lambda network, batch: Graph())
    graph_run(nn.Identity(), torch.zeros(1), "cuda")()
    assert waited == ["cuda", "replay", "cuda"], "a run ends when the device is done"


def test_time_goes_to_the_mark_before_it_and_adds_up(monkeypatch):
    moments = iter([1.0, 1.5, 3.5, 4.0, 5.0])
    monkeypatch.setattr(pytorch, "perf_counter", lambda: next(moments))
    watch = Stopwatch("cpu")
    for name in ("", "conv", "", "conv", ""):
        watch.mark(name)
    assert watch.read_ms() == {"": 1000.0, "conv": 3000.0}
    assert watch.read_ms() == {}, "the marks are forgotten"


def test_on_cuda_events_are_read_when_the_device_is_done(monkeypatch):
    clock, calls = [0.0], []

    class Event:
        def __init__(self, enable_timing):
            assert enable_timing

        def record(self):
            self.at = clock[0]

        def elapsed_time(self, end):
            assert calls[-1] == "synchronize"
            return end.at - self.at

    monkeypatch.setattr(torch.cuda, "Event", Event)
    monkeypatch.setattr(torch.cuda, "synchronize", lambda: calls.append("synchronize"))
    monkeypatch.setattr(torch.cuda, "_sleep", calls.append)
    occupy("cuda", 0.25)
    assert calls == [500_000_000]
    watch = Stopwatch("cuda")
    for name, milliseconds in (("conv", 2.0), ("linear", 3.0), ("", 0.0)):
        watch.mark(name)
        clock[0] += milliseconds
    assert watch.read_ms() == {"conv": 2.0, "linear": 3.0}


def test_the_cpu_is_neither_waited_for_nor_occupied(monkeypatch):
    monkeypatch.setattr(torch.cuda, "synchronize", lambda: pytest.fail("there is no GPU"))
    monkeypatch.setattr(torch.cuda, "_sleep", lambda _: pytest.fail("there is no GPU"))
    started = time.perf_counter()
    wait("cpu")
    occupy("cpu", 10.0)
    assert time.perf_counter() - started < 1


def test_the_copy_is_in_eval_mode_and_in_the_usual_layout():
    model = nn.Conv2d(4, 4, 3).to(memory_format=torch.channels_last).train()
    copied = copy_to(model, "cpu")
    assert copied.weight.is_contiguous()
    assert not copied.training
    assert model.training
    assert not model.weight.is_contiguous()
    assert torch.equal(copied.weight, model.weight)


def test_the_user_chooses_the_threads_on_the_cpu_alone(monkeypatch):
    before, seen = torch.get_num_threads(), []
    model = nn.Linear(2, 2)
    model.register_forward_pre_hook(lambda *_: seen.append(torch.get_num_threads()))
    (result,) = measure_latency(
        PyTorch("torch-cpu", "torch-cpu", "cpu"), (timed(model), timed(model)), torch.zeros(1, 2),
        (1,), Options(threads=2, latency_samples=1),
    )  # fmt: skip
    assert (result.threads, set(seen), torch.get_num_threads()) == (2, {2}, before)
    assert PyTorch("torch-cuda", "torch-cuda", "cuda").threads_used(2) == 1
