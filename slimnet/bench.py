"""Two networks timed in turns, on every runtime that is asked for and there."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from torch import nn

from slimnet import export, load, measure, report
from slimnet.errors import InputError, SlimnetError
from slimnet.records import Benchmark, Inputs, Latency, LayerLatency, NetworkFile, Skipped
from slimnet.settings import Settings, nearest, settings_from

SCHEMA_VERSION = 1


@dataclass(frozen=True)
class _Asked:
    """What is timed: two networks on these inputs, at these batch sizes."""

    pair: tuple[NetworkFile, NetworkFile]
    inputs: Inputs
    batch_sizes: tuple[int, ...]
    model: nn.Module | None
    settings: Settings


def bench(
    original: str | Path,
    slim: str | Path | None = None,
    *,
    runtimes: Sequence[str] | None = None,
    input_shape: Sequence[int] | None = None,
    profile: bool = False,
    model: str | Path | nn.Module | None = None,
    settings: Settings | Mapping[str, Any] | None = None,
    **dials: Any,
) -> Benchmark:
    """Time two networks in turns; nothing is changed or written, and no data is needed.

    Args:
        original: an ONNX file, or a folder that slimnet wrote. A folder alone stands for its
            original.onnx and slim.onnx, one of two folders for its slim network.
        slim: what to compare it with, likewise.
        runtimes: ort-cpu, ort-cuda, torch-cpu, torch-cuda (eager and as a CUDA graph),
            torch-compile-cpu, torch-compile-cuda; None is the ``runtime`` of the settings.
        input_shape: the shape of one input, where the files leave more open than the batch size.
        profile: time every layer, too, in ONNX Runtime.
        model: the original network, as a module or a model file, for PyTorch: a folder holds no
            program of it. Slim networks are then built from it, and no .pt2 is opened.
        settings: all dials at once; ``dials`` go on top. latency_batch, latency_samples, threads,
            seed and, for ``model``, arch, arch_arg, allow and trust_pickle matter here. The last
            one also opens a .pt2 where there is no ``model``.
        **dials: any field of Settings, by name.

    Returns:
        Timings, with a reason for every runtime that had to be left out.

    Raises:
        InputError: the networks cannot be compared, or nothing could be timed.
    """
    started = time.perf_counter()
    settings = settings_from(settings, dials)
    chosen = _chosen_runtimes(runtimes or (settings.runtime,))
    pair = load.find_pair(original, slim)
    wanted = load.common_inputs(pair[0].onnx, pair[1].onnx, input_shape)
    sizes, skipped = load.possible_batch_sizes(wanted, settings.latency_batch)
    wants_torch = any(name.startswith("torch") for name in chosen)
    network = load.load_model(model, settings).model if model and wants_torch else None
    example = load.made_up_onnx_inputs(wanted, settings.seed)
    asked = _Asked(pair, example, sizes, network, settings)
    timed: list[Latency] = []
    layers: list[LayerLatency] = []
    for name in chosen:
        try:
            timed += _time(name, asked)
            layers += _profile(name, asked) if profile else ()
        except SlimnetError as error:
            skipped.append(Skipped(name, str(error)))
    if not timed:
        raise InputError(
            "nothing could be timed: " + "; ".join(f"{s.what}: {s.reason}" for s in skipped)
        )
    return Benchmark(
        schema_version=SCHEMA_VERSION,
        slimnet_version=version("slimnet"),
        original=pair[0].name,
        slim=pair[1].name,
        input_shapes={one.name: one.shape for one in wanted},
        latency=tuple(timed),
        layers=tuple(layers),
        skipped=tuple(skipped),
        warnings=tuple(filter(None, map(measure.noise_warning, timed))),
        environment=report.environment(),
        seconds=time.perf_counter() - started,
    )


def _chosen_runtimes(names: Sequence[str]) -> list[str]:
    names = names.split(",") if isinstance(names, str) else names
    for name in names:
        if name not in measure.TIMED_RUNTIMES:
            raise InputError(
                f"unknown runtime {name!r}{nearest(name, list(measure.TIMED_RUNTIMES))}"
            )
    return list(dict.fromkeys(names))


def _time(name: str, asked: _Asked) -> tuple[Latency, ...]:
    """Time both networks on one runtime.

    Raises:
        SlimnetError: it cannot be done here; the message says why.
    """
    runtime, settings = measure.TIMED_RUNTIMES[name], asked.settings
    if missing := measure.missing_for(runtime):
        raise InputError(f"this machine lacks {' and '.join(missing)}")
    if runtime.startswith("torch-"):
        device, _, compiled = runtime.removeprefix("torch-").partition("-")
        first, second = (
            export.torch_network(network, asked.model, settings.trust_pickle, device)
            for network in asked.pair
        )
        return measure.measure_torch_latency(
            first, second, asked.inputs, asked.batch_sizes, settings.latency_samples,
            seed=settings.seed, device=device, threads=settings.threads, compiled=bool(compiled),
        )  # fmt: skip
    timed = measure.measure_latency(
        asked.pair[0].onnx, asked.pair[1].onnx, asked.inputs, asked.batch_sizes, settings.threads,
        settings.latency_samples, seed=settings.seed, runtimes=(runtime,),
    )  # fmt: skip
    if not timed:
        raise InputError("ONNX Runtime has it but cannot start it: a library of CUDA is missing")
    return timed


def _profile(name: str, asked: _Asked) -> Iterator[LayerLatency]:
    runtime = measure.TIMED_RUNTIMES[name]
    if runtime.startswith("torch-"):
        return
    files = asked.pair[0].onnx, asked.pair[1].onnx
    for size in asked.batch_sizes:
        yield from measure.profile_pair(*files, asked.inputs, size, asked.settings.threads, runtime)
