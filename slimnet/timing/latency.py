"""How long two networks take on the same runtime, timed in turns: a slow moment hits both."""

from __future__ import annotations

import math
import time
from collections import defaultdict
from collections.abc import Sequence
from contextlib import suppress
from itertools import product

import numpy as np
from torch import nn

from slimnet.options import LatencyOptions
from slimnet.records import Artefacts, Inputs, Latency
from slimnet.tasks import fill_batch
from slimnet.timing.onnx_runtime import OnnxRuntime
from slimnet.timing.parity import require_parity
from slimnet.timing.runtime import Run, Runtime, RuntimeDoesNotStart, TimedNetwork
from slimnet.timing.runtimes import RUNTIMES, available_runtimes

MIN_SAMPLE_MS = 2.0  # shorter runs are repeated; a guess: the clock and the call take microseconds
MIN_SAMPLES = 10  # a guess: fewer say little about the spread
WARM_UP_RUNS = 5  # a guess
MAX_SECONDS = 8.0  # for both networks at one batch size; a guess
RESAMPLES = 2000  # of the bootstrap; a guess: fifty of them lie beyond each end of the interval
# both guesses: a large network on a quiet machine has an interval of a few hundredths
MAX_INTERVAL = 0.2  # of the speed-up
MAX_SPREAD = 0.25  # of the median, for the middle half of the samples
Timings = tuple[list[float], list[float]]
"""Paired samples of two networks, in milliseconds per run."""


def measure_speed(
    artefacts: Artefacts,
    original: nn.Module,
    slim: nn.Module,
    example: Inputs,
    options: LatencyOptions,
    further_batch_sizes: Sequence[int] = (),
) -> tuple[Latency, ...]:
    """Time original and slim network on the chosen runtime, and both files in ONNX Runtime.

    Changes neither network. ONNX Runtime is on the CPU and, where this machine has it, on CUDA.

    Args:
        artefacts: the files of both networks.
        original: the network as it came.
        slim: the network that is left of it.
        example: preprocessed inputs (images, ...), repeated to fill a batch.
        options: latency_batch, latency_samples, threads, runtime and seed are read.
        further_batch_sizes: beside those of the options.

    Raises:
        ProofError: a network cannot be opened or run, or the runtime does not give its outputs.
    """
    networks = (
        TimedNetwork(artefacts.original_onnx.path, lambda device: original),
        TimedNetwork(artefacts.slim_onnx.path, lambda device: slim),
    )
    sizes = sorted({*options.latency_batch, *further_batch_sizes})
    timed: list[Latency] = []
    for runtime in available_runtimes():
        if isinstance(runtime, OnnxRuntime) or runtime is RUNTIMES[options.runtime]:
            with suppress(RuntimeDoesNotStart):
                require_parity(runtime, networks, example, sizes, options.threads)
                timed += measure_latency(runtime, networks, example, sizes, options)
    return tuple(timed)


def measure_latency(
    runtime: Runtime,
    networks: tuple[TimedNetwork, TimedNetwork],
    example: Inputs,
    batch_sizes: Sequence[int],
    options: LatencyOptions,
) -> tuple[Latency, ...]:
    """Time original and slim network in turns, in each of the runtime's ways and batch sizes.

    Changes neither network.

    Args:
        runtime: where they run.
        networks: both of them.
        example: preprocessed inputs (images, ...), repeated to fill a batch. They lie on the device
            before the clock starts.
        batch_sizes: in this order, whatever the options say.
        options: latency_samples, threads and seed (of the bootstrap) are read. Fewer timings are
            taken, but at least 10, where a batch size would take more than 8 seconds.

    Raises:
        RuntimeDoesNotStart: the runtime does not start here.
        ProofError: a network cannot be opened or run.
    """
    threads = runtime.threads_used(options.threads)
    max_ms = 1000 * MAX_SECONDS / runtime.sessions
    timed: dict[tuple[str, int], list[Timings]] = defaultdict(list)
    with runtime.using(threads):
        for number in range(min(runtime.sessions, options.latency_samples)):
            samples = len(range(number, options.latency_samples, runtime.sessions))
            opened = [runtime.open(network, threads) for network in networks]
            for way, size in product(runtime.ways, batch_sizes):
                batch = runtime.place(fill_batch(example, size))
                original, slim = (prepare(batch, way) for prepare in opened)
                if original is not None and slim is not None:
                    timings = time_in_turns(original, slim, samples, max_ms, runtime.sessions)
                    timed[way, size].append(timings)
    return tuple(
        summarise(way, threads, size, sessions, seed=options.seed)
        for (way, size), sessions in timed.items()
    )


def summarise(
    runtime: str, threads: int, batch_size: int, sessions: Sequence[Timings], *, seed: int
) -> Latency:
    """Return the samples of all sessions as a record, with a 95 % bootstrap interval."""
    original, slim = (np.concatenate([timings[i] for timings in sessions]) for i in (0, 1))
    sizes = np.array([len(timings[0]) for timings in sessions])
    generator = np.random.default_rng(seed)
    # The two samples of a pair are drawn together: a slow moment of the machine hits both. Sessions
    # are drawn first: their places in memory are chance, too.
    drawn = generator.integers(0, len(sizes), size=(RESAMPLES, len(sizes), 1))
    pairs = (generator.random((RESAMPLES, len(sizes), sizes.max())) * sizes[drawn]).astype(int)
    draws = (pairs + (np.cumsum(sizes) - sizes)[drawn]).reshape(RESAMPLES, -1)
    ratios = np.median(original[draws], axis=1) / np.median(slim[draws], axis=1)
    low, high = (float(bound) for bound in np.percentile(ratios, (2.5, 97.5)))
    original_median, slim_median = float(np.median(original)), float(np.median(slim))
    return Latency(
        runtime=runtime,
        threads=threads,
        batch_size=batch_size,
        original_samples_ms=tuple(original.tolist()),
        slim_samples_ms=tuple(slim.tolist()),
        original_median_ms=original_median,
        slim_median_ms=slim_median,
        speedup=original_median / slim_median,
        speedup_low=low,
        speedup_high=high,
        measurable=not low <= 1.0 <= high,
    )


def time_in_turns(
    original: Run, slim: Run, samples: int, max_ms: float, sessions: int = 1
) -> Timings:
    """Return paired samples of two networks, in milliseconds per run.

    There are ``samples`` of each, but fewer where these would take more than ``max_ms``. All
    ``sessions`` together have at least 10.
    """
    runs = (original, slim)
    run_ms = [_warm_up_ms(run) for run in runs]
    repeats = [math.ceil(MIN_SAMPLE_MS / milliseconds) for milliseconds in run_ms]
    pair_ms = run_ms[0] * repeats[0] + run_ms[1] * repeats[1]
    timings: Timings = ([], [])
    min_samples = math.ceil(MIN_SAMPLES / sessions)
    for number in range(min(samples, max(min_samples, int(max_ms / pair_ms)))):
        # A B, B A: neither always follows the other's caches and heat.
        for which in (0, 1) if number % 2 == 0 else (1, 0):
            timings[which].append(_sample_ms(runs[which], repeats[which]))
    return timings


def _warm_up_ms(run: Run) -> float:
    return max(1e-4, min(_sample_ms(run, 1) for _ in range(WARM_UP_RUNS)))


def _sample_ms(run: Run, repeats: int) -> float:
    start = time.perf_counter()
    for _ in range(repeats):
        run()
    return (time.perf_counter() - start) * 1000 / repeats


def noise_warning(entry: Latency) -> str | None:
    """Return why these timings cannot be trusted, and what to do; None where they can be."""
    where = f"{entry.runtime}, batch {entry.batch_size}"
    samples = len(entry.slim_samples_ms)
    if samples < MIN_SAMPLES:
        return (
            f"{where}: {samples} timing{'s' if samples > 1 else ''} of each network cannot tell "
            f"noise from speed; take {MIN_SAMPLES} or more."
        )
    spread = max(map(_spread, (entry.original_samples_ms, entry.slim_samples_ms)))
    interval = (entry.speedup_high - entry.speedup_low) / entry.speedup
    if interval <= MAX_INTERVAL and spread <= MAX_SPREAD:
        return None
    return (
        f"{where}: the machine is too noisy to tell. The ratio of the times lies anywhere from "
        f"{entry.speedup_low:.2f} to {entry.speedup_high:.2f}, and the middle half of the timings "
        f"of one network is spread over {100 * spread:.0f} % of its median: close other programs, "
        f"or take more samples than {samples}. The time of a small network also depends on its "
        "place in memory, which changes from session to session."
    )


def _spread(samples_ms: tuple[float, ...]) -> float:
    low, middle, high = np.percentile(samples_ms, (25, 50, 75))
    return float((high - low) / middle)
