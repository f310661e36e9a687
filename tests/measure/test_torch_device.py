"""Marks and waiting: on the CPU for real, on CUDA with events that are made up."""

from __future__ import annotations

import time

import pytest
import torch
from torch import nn

from slimnet.measure import torch_device
from slimnet.measure.torch_device import Stopwatch, copy_to, occupy, wait


def test_time_goes_to_the_mark_before_it_and_adds_up(monkeypatch):
    moments = iter([1.0, 1.5, 3.5, 4.0, 5.0])
    monkeypatch.setattr(torch_device, "perf_counter", lambda: next(moments))
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
