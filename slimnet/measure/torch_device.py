"""PyTorch on a device, for timing: copies that lie there, moments of its work, and waiting."""

from __future__ import annotations

import copy
from itertools import pairwise
from time import perf_counter
from typing import Any

import torch
from torch import Tensor, nn

from slimnet.records import Inputs

CYCLES_PER_SECOND = 2e9  # of a fast GPU; a slower one is occupied for longer


def copy_to(model: nn.Module, device: str) -> nn.Module:
    """Return a copy in eval mode on the device, in the usual layout; does not change the model."""
    working = copy.deepcopy(model).eval().to(device)
    return working.to(memory_format=torch.contiguous_format)


def inputs_on(inputs: Inputs, device: str) -> Inputs:
    """Return copies of a network's inputs on the device; on the CPU they are the same ones."""
    if isinstance(inputs, Tensor):
        return inputs.to(device)
    return tuple(tensor.to(device) for tensor in inputs)


def wait(device: str) -> None:
    """Return when the device has done all that it was given; the CPU has at once."""
    if device != "cpu":
        torch.cuda.synchronize()


def occupy(device: str, seconds: float) -> None:
    """Keep the device busy for about this long, so that what is queued behind runs without gaps.

    Timed otherwise, a small network's layers would take as long as Python takes to launch them.
    """
    if device != "cpu":
        torch.cuda._sleep(int(seconds * CYCLES_PER_SECOND))  # type: ignore[no-untyped-call]


class Stopwatch:
    """Marks moments in the order of a device's work; on CUDA as events, so the device's own."""

    def __init__(self, device: str) -> None:
        self._device = device
        self._names: list[str] = []
        self._moments: list[Any] = []  # milliseconds on the CPU, events on CUDA

    def mark(self, name: str) -> None:
        """Count what the device is given from here to the next mark under ``name``."""
        self._names.append(name)
        if self._device == "cpu":
            self._moments.append(1000 * perf_counter())
        else:
            event = torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]
            event.record()
            self._moments.append(event)

    def read_ms(self) -> dict[str, float]:
        """Wait for the device, return the milliseconds under each name, and forget the marks."""
        wait(self._device)
        times: dict[str, float] = {}
        for name, (start, end) in zip(self._names, pairwise(self._moments), strict=False):
            times[name] = times.get(name, 0.0) + _distance_ms(start, end)
        self._names, self._moments = [], []
        return times


def _distance_ms(start: Any, end: Any) -> float:
    return end - start if isinstance(start, float) else float(start.elapsed_time(end))
