"""Two networks, ONNX files or folders that slimnet wrote, timed against each other."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

from torch import nn

from slimnet import data, export, load, report, timing
from slimnet.errors import InputError, SlimnetError
from slimnet.options import Options, nearest, options_from
from slimnet.records import Benchmark, Inputs, Latency, LayerLatency, OnnxInput, Skipped
from slimnet.tasks import fill_batch
from slimnet.timing import RUNTIMES, Runtime, TimedNetwork

SCHEMA_VERSION = 1
MAX_ELEMENTS = 2**28  # of a batch: 1 GiB of float32, far beyond any batch that is worth timing


@dataclass(frozen=True)
class NetworkFile:
    """A network to be timed: its ONNX file and, if it came in one, the folder slimnet wrote.

    ``is_original`` is True for the folder's original.onnx, False for its slim.onnx.
    """

    name: str
    onnx: Path
    folder: Path | None
    is_original: bool


def bench(
    original: str | Path,
    slim: str | Path | None = None,
    *,
    runtimes: Sequence[str] | None = None,
    input_shape: Sequence[int] | Sequence[Sequence[int]] | None = None,
    profile: bool = False,
    model: str | Path | nn.Module | None = None,
    options: Options | Mapping[str, Any] | None = None,
    **changes: Any,
) -> Benchmark:
    """Time two networks in turns; nothing is changed or written, and no data is needed.

    Args:
        original: an ONNX file, or a folder that slimnet wrote. A folder alone stands for its
            original.onnx and slim.onnx, one of two folders for its slim network.
        slim: the network to compare it with, likewise.
        runtimes: ort-cpu, ort-cuda, openvino, torch-cpu, torch-cuda (eager and as a CUDA graph),
            torch-compile-cpu, torch-compile-cuda; None is the ``runtime`` of the options.
        input_shape: the shape of one input, or one for each of several, where the files leave more
            open than the batch size.
        profile: time every layer, too, in ONNX Runtime and OpenVINO.
        model: the original network, as a module or a model file, for PyTorch: a folder holds no
            program of it. Slim networks are then built from it, and no .pt2 is opened.
        options: all options at once; ``changes`` go on top. latency_batch, latency_samples,
            threads, seed and, for ``model``, arch, arch_arg, allow and trust_pickle matter here.
            The last one also opens a .pt2 where there is no ``model``.
        **changes: any field of Options, by name.

    Returns:
        Timings, with a reason for every runtime that had to be left out.

    Raises:
        InputError: the networks cannot be compared, or nothing could be timed.
    """
    started = time.perf_counter()
    options = options_from(options, changes)
    chosen = _chosen_runtimes(runtimes or (options.runtime,))
    pair = find_pair(original, slim)
    wanted = data.common_inputs(pair[0].onnx, pair[1].onnx, input_shape)
    sizes, skipped = possible_batch_sizes(wanted, options.latency_batch)
    module = None
    if model is not None and not all(runtime.reads_onnx for runtime in chosen):
        module = load.load_model(model, options).model
    first, second = (
        TimedNetwork(network.onnx, partial(_torch_network, network, module, options.trust_pickle))
        for network in pair
    )
    example = data.made_up_onnx_inputs(wanted, options.seed)
    timed, layers, failed = _time_all(chosen, (first, second), example, sizes, options, profile)
    skipped += failed
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
        warnings=tuple(filter(None, map(timing.noise_warning, timed))),
        environment=report.environment(),
        seconds=time.perf_counter() - started,
    )


def _chosen_runtimes(names: Sequence[str]) -> list[Runtime]:
    names = names.split(",") if isinstance(names, str) else names
    for name in names:
        if name not in RUNTIMES:
            raise InputError(f"unknown runtime {name!r}{nearest(name, list(RUNTIMES))}")
    return [RUNTIMES[name] for name in dict.fromkeys(names)]


def find_pair(original: str | Path, slim: str | Path | None) -> tuple[NetworkFile, NetworkFile]:
    """Return the networks that two names stand for; one alone is a folder with both.

    Raises:
        InputError: there is no such file or folder, or it holds no ONNX network.
    """
    if slim is not None:
        return _network(Path(original)), _network(Path(slim))
    if Path(original).is_file():
        raise InputError(
            f"two networks are compared; got {original} alone: slimnet bench original.onnx "
            "slim.onnx, or one folder that slimnet wrote"
        )
    return _network(Path(original), is_original=True), _network(Path(original))


def _network(path: Path, is_original: bool = False) -> NetworkFile:
    if not path.exists():
        raise InputError(f"there is no file or folder {path}")
    folder = path if path.is_dir() else None
    file = path if folder is None else path / ("original.onnx" if is_original else "slim.onnx")
    if not file.is_file():
        raise InputError(f"a folder that slimnet wrote holds {file.name}; {path} does not")
    if file.suffix != ".onnx":
        raise InputError(
            f"ONNX files and folders that slimnet wrote can be timed; got {path}: slimnet compress "
            "or slimnet apply make them of a model file"
        )
    return NetworkFile(str(path if folder is None else file), file, folder, is_original)


def possible_batch_sizes(
    wanted: Sequence[OnnxInput], asked: Sequence[int]
) -> tuple[tuple[int, ...], list[Skipped]]:
    """Return the batch sizes that the files take, and those asked for that they do not.

    Raises:
        InputError: they take none of those asked for, or a batch would be too large.
    """
    fixed = {one.shape[0] for one in wanted} - {None}
    sizes = [size for size in dict.fromkeys(asked) if fixed <= {size}]
    if not sizes:
        only = " and ".join(map(str, sorted(size for size in fixed if size)))
        raise InputError(f"the files take batches of {only} images only: --batch {only}")
    elements = sum(math.prod(axis or 1 for axis in one.shape[1:]) for one in wanted)
    if max(sizes) * elements > MAX_ELEMENTS:
        raise InputError(
            f"a batch may have {MAX_ELEMENTS:,} elements; {max(sizes):,} images have "
            f"{max(sizes) * elements:,}: give a smaller --batch"
        )
    reason = f"the files take batches of {sizes[0]} only"
    return tuple(sizes), [Skipped(f"batch {size}", reason) for size in asked if size not in sizes]


def _torch_network(
    network: NetworkFile, model: nn.Module | None, trust_pickle: bool, device: str
) -> nn.Module:
    """Return a network for PyTorch: built from the original ``model``, or else opened as .pt2.

    The model is not changed. A .pt2 is opened on the device.

    Raises:
        InputError: there is neither, or the .pt2 may not be opened.
    """
    if network.folder is None:
        raise InputError(f"PyTorch cannot run {network.name}; give a folder that slimnet wrote")
    if model is not None:
        own = load.copied(model)
        return own if network.is_original else export.load_slim(network.folder, own)
    if network.is_original:
        raise InputError(
            f"{network.folder} holds no PyTorch program of the original; name its model file with "
            "--model"
        )
    if not trust_pickle:
        raise InputError(
            f"{network.folder / 'slim.pt2'} can hold code that would run when it is opened: allow "
            "it with --trust-pickle, or name the original's model file with --model instead"
        )
    return export.load_program(network.folder / "slim.pt2", device)


def _time_all(
    runtimes: Sequence[Runtime],
    pair: tuple[TimedNetwork, TimedNetwork],
    example: Inputs,
    batch_sizes: Sequence[int],
    options: Options,
    profile: bool,
) -> tuple[list[Latency], list[LayerLatency], list[Skipped]]:
    """Time both networks on every runtime; where that fails, return why instead."""
    timed: list[Latency] = []
    layers: list[LayerLatency] = []
    skipped: list[Skipped] = []
    for runtime in runtimes:
        try:
            if missing := runtime.missing():
                raise InputError(f"this machine lacks {' and '.join(missing)}")
            timed += timing.measure_latency(runtime, pair, example, batch_sizes, options)
            for size in batch_sizes if profile else ():
                batch = fill_batch(example, size)
                layers += runtime.compare_layers(pair, batch, options.threads)
        except SlimnetError as error:
            skipped.append(Skipped(runtime.name, str(error)))
    return timed, layers, skipped
