"""How long two ONNX files take on the same runtime, timed in turns so that drift hits both.

Where the weights and buffers of a session come to lie in memory can make a small network half as
fast again, for as long as the session lives. So both files are opened several times, and the
interval of the speed-up is over these as well.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime

from slimnet.errors import ProofError
from slimnet.measure.forward import fill_batch, input_tensors
from slimnet.measure.runtime import PROVIDERS, available_runtimes, session_options
from slimnet.records import Inputs, Latency

SHORTEST_SAMPLE_MS = 2.0
FEWEST_SAMPLES = 10
SESSIONS = 5
RESAMPLES = 2000
Run = Callable[[], None]
Timings = tuple[list[float], list[float]]
"""Paired samples of two networks, in milliseconds per run."""


def measure_latency(
    original: Path,
    slim: Path,
    example: Inputs,
    batch_sizes: Sequence[int],
    threads: int,
    samples: int,
    *,
    seed: int = 0,
    seconds_per_batch: float = 8.0,
    runtimes: Sequence[str] | None = None,
) -> tuple[Latency, ...]:
    """Time both files in ONNX Runtime on the CPU and, where it and torch can use one, on CUDA.

    Changes no model. ``example`` is preprocessed inputs (images, ...), its rows repeated to fill
    a batch; they lie on the device before the clock starts. ``samples`` timings per file, fewer
    (but 10) where a batch size would take more than ``seconds_per_batch``. ``seed`` is the
    bootstrap's. Gives one record per runtime, of ``runtimes`` alone where they are given, and batch
    size, in milliseconds per run.

    Raises:
        ProofError: ONNX Runtime cannot load or run a file.
    """
    results = []
    for runtime in [name for name in runtimes or available_runtimes() if name in PROVIDERS]:
        batches = {
            size: [tensor.numpy() for tensor in input_tensors(fill_batch(example, size))]
            for size in batch_sizes
        }
        shares = [len(range(i, samples, SESSIONS)) for i in range(min(SESSIONS, samples))]
        most_ms = seconds_per_batch * 1000 / SESSIONS
        sessions = []
        for share in shares:
            timed = _time_session((original, slim), runtime, threads, batches, share, most_ms)
            if timed is None:
                break
            sessions.append(timed)
        if sessions:
            results += [
                summarise(runtime, threads, size, [timed[size] for timed in sessions], seed=seed)
                for size in batches
            ]
    return tuple(results)


def _time_session(
    files: Sequence[Path],
    runtime: str,
    threads: int,
    batches: Mapping[int, Sequence[Any]],
    samples: int,
    most_ms: float,
) -> dict[int, Timings] | None:
    """Open both files, and return paired samples by batch size; None if not on the runtime."""
    sessions = [_open_session(path, runtime, threads) for path in files]
    # A provider whose libraries are missing falls back to the CPU without raising.
    if any(session.get_providers()[0] != PROVIDERS[runtime] for session in sessions):
        return None
    timed = {}
    for size, batch in batches.items():
        first, second = (_bind(session, batch, runtime) for session in sessions)
        timed[size] = time_in_turns(first, second, samples, most_ms, SESSIONS)
    return timed


def summarise(
    runtime: str, threads: int, batch_size: int, sessions: Sequence[Timings], *, seed: int
) -> Latency:
    """Return the record for the samples of each session, with a 95 % bootstrap interval."""
    original, slim = (np.concatenate([timings[i] for timings in sessions]) for i in (0, 1))
    sizes = np.array([len(timings[0]) for timings in sessions])
    generator = np.random.default_rng(seed)
    # Pairs are drawn together: what slowed the machine at one moment slowed both. And sessions are
    # drawn first: what places them in memory is as much chance as that.
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


def _open_session(path: Path, runtime: str, threads: int) -> Any:
    try:
        return onnxruntime.InferenceSession(
            str(path), session_options(threads), providers=[PROVIDERS[runtime]]
        )
    except Exception as error:  # onnxruntime raises many unrelated classes
        raise ProofError(f"ONNX Runtime cannot load {path.name}: {error}") from error


def _bind(session: Any, batch: Sequence[Any], runtime: str) -> Run:
    device = runtime.removeprefix("onnxruntime-")
    binding = session.io_binding()
    for wanted, array in zip(session.get_inputs(), batch, strict=True):
        value = onnxruntime.OrtValue.ortvalue_from_numpy(array, device, 0)
        binding.bind_ortvalue_input(wanted.name, value)
    for given in session.get_outputs():
        binding.bind_output(given.name, device)
    try:
        session.run_with_iobinding(binding)
    except Exception as error:
        raise ProofError(f"ONNX Runtime cannot run a batch of {len(batch[0])}: {error}") from error
    return lambda: session.run_with_iobinding(binding)


def time_in_turns(
    original: Run, slim: Run, samples: int, most_ms: float, sessions: int = 1
) -> Timings:
    """Return paired samples in milliseconds per run; each run returns when its work is done.

    As many samples of each as asked for, fewer (but 10 in so many sessions) where they would take
    over ``most_ms``.
    """
    runs = (original, slim)
    run_ms = [_warm_up_ms(run) for run in runs]
    repeats = [math.ceil(SHORTEST_SAMPLE_MS / milliseconds) for milliseconds in run_ms]
    pair_ms = run_ms[0] * repeats[0] + run_ms[1] * repeats[1]
    timings: Timings = ([], [])
    fewest = math.ceil(FEWEST_SAMPLES / sessions)
    for number in range(min(samples, max(fewest, int(most_ms / pair_ms)))):
        # A B, B A: neither always follows the other's caches and heat.
        for which in (0, 1) if number % 2 == 0 else (1, 0):
            timings[which].append(_sample_ms(runs[which], repeats[which]))
    return timings


def _warm_up_ms(run: Run) -> float:
    return max(1e-4, min(_sample_ms(run, 1) for _ in range(5)))


def _sample_ms(run: Run, repeats: int) -> float:
    start = time.perf_counter()
    for _ in range(repeats):
        run()
    return (time.perf_counter() - start) * 1000 / repeats
