"""How long each layer of an ONNX file takes, inside the whole network, in ONNX Runtime."""

from __future__ import annotations

import json
import tempfile
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import Any

import numpy
import onnx

from slimnet.measure.runtime import open_session, session_options

SESSIONS = 3
RUNS = 4
WARM_UP_RUNS = 2
TRANSPOSED_WEIGHT = ".weight.T"
WEIGHTS = (".weight", TRANSPOSED_WEIGHT)
LAYERS = ("Conv", "ConvTranspose", "Gemm", "MatMul")
FUSED_INTO_PRODUCER = {"Relu", "Clip", "Sigmoid", "HardSigmoid", "Add", "Mul", "LeakyRelu", "Tanh"}
_Times = dict[tuple[str, str], list[float]]
"""Milliseconds of each run, by a node's name and operator."""


def profile_layers(
    files: Sequence[Path],
    example: Sequence[numpy.ndarray[Any, Any]],
    threads: int,
    runtime: str,
) -> list[dict[str, float]]:
    """Return the median time of each file's convolutions and linear layers, in ms per run.

    Args:
        files: ONNX files whose weights carry their names in the PyTorch network, run in turns.
        example: one batch for each input of the networks, (images, ...).
        threads: of ONNX Runtime.
        runtime: "onnxruntime-cpu" or "onnxruntime-cuda".

    Returns:
        Times by PyTorch module name; under "" everything else together. What ONNX Runtime fuses
        into a layer counts with it.

    Raises:
        InputError: ONNX Runtime cannot start the runtime.
    """
    nodes = profile_nodes(files, example, threads, runtime)
    return [_by_module(*both) for both in zip(files, nodes, strict=True)]


def _by_module(file: Path, nodes: Mapping[str, tuple[str, float]]) -> dict[str, float]:
    layer_of = layers_by_name(onnx.load(str(file)))
    times: dict[str, float] = defaultdict(float)
    for node, (_, milliseconds) in nodes.items():
        times[layer_of.get(plain_name(node), "")] += milliseconds
    return dict(times)


def profile_nodes(
    files: Sequence[Path],
    example: Sequence[numpy.ndarray[Any, Any]],
    threads: int,
    runtime: str,
) -> list[dict[str, tuple[str, float]]]:
    """Return each file's nodes as ONNX Runtime runs them: operator and median milliseconds by name.

    The files are run in turns, a few runs each; the arguments are those of ``profile_layers``.

    Raises:
        InputError: ONNX Runtime cannot start the runtime.
    """
    found: list[_Times] = [defaultdict(list) for _ in files]
    pairs = list(zip(found, files, strict=True))
    # each session has its weights and buffers somewhere else in memory: see ``latency``
    for turn in range(SESSIONS):
        # A B, B A: neither always comes after the other
        for known, file in pairs if turn % 2 == 0 else reversed(pairs):
            for node, milliseconds in _profiled(file, example, threads, runtime).items():
                known[node] += milliseconds
    return [
        {name: (operator, median(milliseconds)) for (name, operator), milliseconds in known.items()}
        for known in found
    ]


def _profiled(
    file: Path, example: Sequence[numpy.ndarray[Any, Any]], threads: int, runtime: str
) -> _Times:
    """Return what a file's nodes took in the runs of one session, without those that warm it up."""
    with tempfile.TemporaryDirectory() as folder:
        options = session_options(threads)
        options.enable_profiling = True
        options.profile_file_prefix = str(Path(folder) / "profile")
        session = open_session(str(file), runtime, options)
        names = [wanted.name for wanted in session.get_inputs()]
        for _ in range(WARM_UP_RUNS + RUNS):
            session.run(None, dict(zip(names, example, strict=True)))
        times = _node_times(Path(session.end_profiling()))
        return {node: milliseconds[-RUNS:] for node, milliseconds in times.items()}


def _node_times(profile: Path) -> _Times:
    times: _Times = defaultdict(list)
    for event in json.loads(profile.read_text()):
        if event.get("cat") == "Node" and event["name"].endswith("_kernel_time"):
            name = event["name"].removesuffix("_kernel_time")
            times[name, event["args"]["op_name"]].append(event["dur"] / 1000)
    return times


def plain_name(node: str) -> str:
    """Return what a node was called before ONNX Runtime rewrote it."""
    return node.removeprefix("fused ").removesuffix("_nchwc")


def layers_by_name(model: onnx.ModelProto) -> Mapping[str, str]:
    """Map node names, and names of what a fused node puts out, to PyTorch module names."""
    found: dict[str, str] = {}
    weights = {initializer.name for initializer in model.graph.initializer}
    for node in model.graph.node:
        own = [name for name in node.input if name in weights and name.endswith(WEIGHTS)]
        layer = own[0].rpartition(".weight")[0] if own and node.op_type in LAYERS else None
        if layer is None and node.op_type in FUSED_INTO_PRODUCER:
            # a fused node carries the name of the last output that it swallowed
            layer = next((found[i] for i in node.input if i in found), None)
        if layer is not None:
            found |= dict.fromkeys((node.name, *node.output), layer)
    return found
