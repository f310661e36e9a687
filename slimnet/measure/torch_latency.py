"""How long two networks take in PyTorch on a device, eagerly and, where it can be, as a graph."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import nn

from slimnet.errors import ProofError
from slimnet.load.importing import first_line
from slimnet.measure.forward import fill_batch, forward
from slimnet.measure.latency import Run, summarise, time_in_turns
from slimnet.measure.torch_device import copy_to, inputs_on, wait
from slimnet.records import Inputs, Latency

LAUNCHING_THREADS = 1
WARM_UP_RUNS = 3


def measure_torch_latency(
    original: nn.Module,
    slim: nn.Module,
    example: Inputs,
    batch_sizes: Sequence[int],
    samples: int,
    *,
    seed: int = 0,
    seconds_per_batch: float = 8.0,
    device: str = "cuda",
    threads: int = LAUNCHING_THREADS,
    compiled: bool = False,
) -> tuple[Latency, ...]:
    """Time both networks in PyTorch, eagerly and as a CUDA graph where both can be captured.

    Or, if ``compiled``, by torch.compile alone, as "torch-cuda-compiled".

    Changes neither: copies run, in float32 with PyTorch's own settings (TF32 where it uses it).
    ``example`` and the rest as for ``measure_latency``; a run ends when the device is done. Gives
    one record per way of running and batch size, in milliseconds per run, named "torch-cuda" and
    "torch-cuda-graph" on the device "cuda". On the CPU PyTorch has so many ``threads`` meanwhile.

    Raises:
        ProofError: PyTorch cannot run a network on the device.
    """
    results, threads = [], threads if device == "cpu" else LAUNCHING_THREADS
    ways: dict[str, Callable[..., Run | None]] = {
        f"torch-{device}": _eager, f"torch-{device}-graph": _captured
    }  # fmt: skip
    if compiled:
        ways = {f"torch-{device}-compiled": _compiled}
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(threads)
        networks = [copy_to(network, device) for network in (original, slim)]
        for runtime, prepare in ways.items():
            for batch_size in batch_sizes:
                # a graph reads the batch where it lies, so it has to stay while it is timed
                batch = inputs_on(fill_batch(example, batch_size), device)
                first, second = (prepare(network, batch, device) for network in networks)
                if first is None or second is None:
                    continue
                timings = time_in_turns(first, second, samples, seconds_per_batch * 1000)
                results.append(summarise(runtime, threads, batch_size, [timings], seed=seed))
    except Exception as error:  # a network's own code may raise anything
        raise ProofError(f"PyTorch cannot run on {device}: {first_line(error)}") from error
    finally:
        torch.set_num_threads(before)
    return tuple(results)


def _eager(network: nn.Module, batch: Inputs, device: str) -> Run:
    def run() -> None:
        with torch.inference_mode():
            forward(network, batch)
        wait(device)

    return run


def _compiled(network: nn.Module, batch: Inputs, device: str) -> Run:
    # networks of one kind share the compiler's memory, which gives up after a few shapes
    torch.compiler.reset()
    return _eager(torch.compile(network, dynamic=False), batch, device)  # type: ignore[arg-type]


def _captured(network: nn.Module, batch: Inputs, device: str) -> Run | None:
    """Return what replays the network as one graph, or None where it cannot be captured."""
    if device == "cpu":
        return None
    try:
        graph = _capture(network, batch)
    except Exception:  # the network reads results on the CPU, say, or memory is short
        wait(device)
        return None

    def run() -> None:
        graph.replay()
        wait(device)

    return run


def _capture(network: nn.Module, batch: Inputs) -> torch.cuda.CUDAGraph:
    graph = torch.cuda.CUDAGraph()
    # libraries choose their algorithms and memory on the first runs, which a graph must not hold
    stream = torch.cuda.Stream()  # type: ignore[no-untyped-call]
    stream.wait_stream(torch.cuda.current_stream())
    with torch.inference_mode():
        with torch.cuda.stream(stream):
            for _ in range(WARM_UP_RUNS):
                forward(network, batch)
        torch.cuda.current_stream().wait_stream(stream)
        with torch.cuda.graph(graph):
            forward(network, batch)
    return graph
