"""PyTorch as a runtime: eagerly, as a CUDA graph, or compiled."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from statistics import median
from time import perf_counter
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.modules.conv import _ConvNd

from slimnet.errors import InputError, ProofError, SlimnetError
from slimnet.load import copied, first_line
from slimnet.records import Inputs
from slimnet.tasks import forward
from slimnet.timing.runtime import (
    Prepare,
    Run,
    Runtime,
    TimedNetwork,
    Timer,
    pair_images,
    pair_weights,
)

GRAPH = "-graph"
GRAPH_WARM_UP_RUNS = 3  # as in PyTorch's own example of a capture
PROFILE_RUNS = 12  # a guess
PROFILE_WARM_UP_RUNS = 3  # a guess: the first ones allocate memory and choose algorithms
PAIR_IMAGES = {"cpu": 1, "cuda": 256}  # one image would leave most of a GPU idle at every width
PAIR_OCCUPIED_SECONDS = 1e-3  # longer than Python takes to launch two pairs
MAX_OCCUPIED_SECONDS = 0.1  # a guess: more would only keep the user waiting
CYCLES_PER_SECOND = 2e9  # of a fast GPU; a slower one is occupied for longer


@dataclass(frozen=True)
class PyTorch(Runtime):
    """PyTorch on a device. ``graphs`` also times networks as CUDA graphs."""

    compiled: bool = False
    graphs: bool = False
    reads_onnx: ClassVar[bool] = False

    @property
    def ways(self) -> tuple[str, ...]:
        """Names of the ways to run a network here."""
        return (self.long_name, self.long_name + GRAPH) if self.graphs else (self.long_name,)

    @property
    def library(self) -> str:
        """Name and version of the library."""
        return f"torch {torch.__version__}"

    def threads_used(self, threads: int) -> int:
        """Return how many threads run a network: on CUDA one, which launches the work."""
        return threads if self.device == "cpu" else 1

    @contextmanager
    def using(self, threads: int) -> Iterator[None]:
        """Let PyTorch have so many threads within the block; see ``Runtime.using``."""
        before = torch.get_num_threads()
        try:
            torch.set_num_threads(threads)
            yield
        except SlimnetError:
            raise
        except Exception as error:  # a network's own code may raise anything
            raise ProofError(f"PyTorch cannot run on {self.device}: {first_line(error)}") from error
        finally:
            torch.set_num_threads(before)

    def place(self, batch: Inputs) -> Inputs:
        """Return a batch on the device; on the CPU it is the same one."""
        if isinstance(batch, Tensor):
            return batch.to(self.device)
        return tuple(tensor.to(self.device) for tensor in batch)

    def open(self, network: TimedNetwork, threads: int) -> Prepare:
        """Copy the network to the device; see ``Runtime.open``.

        The copy runs in float32 with PyTorch's own settings.
        """
        return partial(self._prepare, self._copy(network))

    def _copy(self, network: TimedNetwork) -> nn.Module:
        if network.module is None:
            raise TypeError("PyTorch needs a network's module; there is only its ONNX file")
        return copy_to(network.module(self.device), self.device)

    def _prepare(self, working: nn.Module, batch: Inputs, way: str) -> Run | None:
        """Return what runs a network on a batch; both lie on the device.

        None where the way is a CUDA graph and the network cannot be captured as one.
        """
        if way.endswith(GRAPH):
            return graph_run(working, batch, self.device)
        if not self.compiled:
            return eager_run(working, batch, self.device)
        # networks of one kind share the compiler's memory, which gives up after a few shapes
        torch.compiler.reset()
        compiled = torch.compile(working, dynamic=False)
        return eager_run(compiled, batch, self.device)  # type: ignore[arg-type]

    def layer_times(
        self, networks: Sequence[TimedNetwork], batch: Inputs, threads: int
    ) -> list[dict[str, float]]:
        """Return the times of layers; see ``Runtime.layer_times``.

        A layer's time ends when the next layer begins, and includes the norm, activation or sum
        behind it. It is the device's own time: where launching takes longer than computing, the
        whole network takes longer than its layers.
        """
        try:
            return [self._layer_times(network, batch) for network in networks]
        except Exception as error:  # a network's own code may raise anything
            raise InputError(
                f"the network does not run in PyTorch on {self.device}: {first_line(error)}; make "
                "what it creates lie where its inputs do, free memory there, or choose another "
                "runtime"
            ) from error

    def _layer_times(self, network: TimedNetwork, batch: Inputs) -> dict[str, float]:
        runs = _profile(self._copy(network), self.place(batch), self.device)
        names = {name for run in runs for name in run}
        return {name: median(run.get(name, 0.0) for run in runs) for name in names}

    def pair_timer(self, width: int, threads: int) -> Timer:
        """Return a timer of two convolutions; see ``Runtime.pair_timer``."""
        first, second = (torch.from_numpy(x).to(self.device) for x in pair_weights(width))
        batch = torch.from_numpy(pair_images(PAIR_IMAGES[self.device])).to(self.device)
        watch = Stopwatch(self.device)

        def time_ms() -> float:
            occupy(self.device, PAIR_OCCUPIED_SECONDS)
            watch.mark("pairs")
            for _ in range(2):
                between = functional.conv2d(batch, first, padding=1).relu_()
                functional.conv2d(between, second, padding=1)
            watch.mark("")
            return watch.read_ms()["pairs"]

        time_ms()
        return time_ms


def eager_run(network: nn.Module, batch: Inputs, device: str) -> Run:
    """Return what runs the network, and returns when the device is done."""

    def run() -> None:
        with torch.inference_mode():
            forward(network, batch)
        wait(device)

    return run


def graph_run(network: nn.Module, batch: Inputs, device: str) -> Run | None:
    """Return what replays the network as one CUDA graph, or None where it cannot be captured."""
    try:
        graph = capture(network, batch)
    except Exception:  # the network reads results on the CPU, say, or memory is short
        wait(device)
        return None

    def run() -> None:
        graph.replay()
        wait(device)

    return run


def capture(network: nn.Module, batch: Inputs) -> torch.cuda.CUDAGraph:
    """Return the network as a CUDA graph, which reads the batch where it lies."""
    graph = torch.cuda.CUDAGraph()
    # libraries choose their algorithms and memory on the first runs, which a graph must not hold
    stream = torch.cuda.Stream()  # type: ignore[no-untyped-call]
    stream.wait_stream(torch.cuda.current_stream())
    with torch.inference_mode():
        with torch.cuda.stream(stream):
            for _ in range(GRAPH_WARM_UP_RUNS):
                forward(network, batch)
        torch.cuda.current_stream().wait_stream(stream)
        with torch.cuda.graph(graph):
            forward(network, batch)
    return graph


def copy_to(model: nn.Module, device: str) -> nn.Module:
    """Return a copy in eval mode on the device, in the usual layout; does not change the model."""
    working = copied(model).eval().to(device)
    return working.to(memory_format=torch.contiguous_format)


def wait(device: str) -> None:
    """Return when the device has done its work. The CPU always has."""
    if device != "cpu":
        torch.cuda.synchronize()


def occupy(device: str, seconds: float) -> None:
    """Keep a GPU busy for about this long. The work that is queued behind then runs without gaps.

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
        """Count the device's work from here to the next mark under ``name``."""
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


def _profile(network: nn.Module, batch: Inputs, device: str) -> list[dict[str, float]]:
    """Return the milliseconds of each layer in several runs; adds hooks to the network."""
    watch = Stopwatch(device)
    for name, module in network.named_modules():
        if isinstance(module, (_ConvNd, nn.Linear)):
            module.register_forward_pre_hook(lambda module, args, name=name: watch.mark(name))
    runs, seconds = [], 0.0
    with torch.inference_mode():
        for _ in range(PROFILE_WARM_UP_RUNS + PROFILE_RUNS):
            occupy(device, seconds)
            started = perf_counter()
            watch.mark("")
            forward(network, batch)
            watch.mark("")
            # long enough for the next run to be launched as a whole before it starts
            seconds = min(MAX_OCCUPIED_SECONDS, 2 * (perf_counter() - started))
            runs.append(watch.read_ms())
    return runs[PROFILE_WARM_UP_RUNS:]
