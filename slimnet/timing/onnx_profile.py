"""How long each layer of an ONNX file takes, inside the whole network, in ONNX Runtime."""

from __future__ import annotations

import json
import tempfile
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import Any

import onnx
from numpy.typing import NDArray

from slimnet.timing.onnx_session import open_session, session_options

SESSIONS = 3  # a guess: the least that has a middle
RUNS = 4  # of each session; a guess
WARM_UP_RUNS = 2  # a guess: the first one allocates memory
TRANSPOSED_WEIGHT = ".weight.T"
WEIGHTS = (".weight", TRANSPOSED_WEIGHT)
LAYERS = ("Conv", "ConvTranspose", "Gemm", "MatMul")
FUSED_INTO_PRODUCER = {"Relu", "Clip", "Sigmoid", "HardSigmoid", "Add", "Mul", "LeakyRelu", "Tanh"}

Nodes = Mapping[str, tuple[str, float]]
"""Operator and milliseconds of each node that ONNX Runtime runs, by the node's name."""
_Times = dict[tuple[str, str], list[float]]
"""Milliseconds of each run, by a node's name and operator."""


def profile_nodes(
    files: Sequence[Path], batch: Sequence[NDArray[Any]], threads: int, provider: str
) -> list[Nodes]:
    """Return each file's nodes as ONNX Runtime runs them, with their median times.

    The files run in turns, a few runs each. ``batch`` holds one array (images, ...) for each input
    of the networks.

    Raises:
        ProofError: ONNX Runtime cannot load a file.
        RuntimeDoesNotStart: it cannot start the provider.
    """
    times: list[_Times] = [defaultdict(list) for _ in files]
    pairs = list(zip(times, files, strict=True))
    # each session has its weights and buffers somewhere else in memory: see ``latency``
    for turn in range(SESSIONS):
        # A B, B A: neither always comes after the other
        for known, file in pairs if turn % 2 == 0 else reversed(pairs):
            for node, milliseconds in _profiled(file, batch, threads, provider).items():
                known[node] += milliseconds
    return [
        {name: (operator, median(milliseconds)) for (name, operator), milliseconds in known.items()}
        for known in times
    ]


def _profiled(file: Path, batch: Sequence[NDArray[Any]], threads: int, provider: str) -> _Times:
    """Return the times of a file's nodes in the runs of one session, but for its first runs."""
    with tempfile.TemporaryDirectory() as folder:
        options = session_options(threads)
        options.enable_profiling = True
        options.profile_file_prefix = str(Path(folder) / "profile")
        session = open_session(file, options, provider)
        names = [value.name for value in session.get_inputs()]
        for _ in range(WARM_UP_RUNS + RUNS):
            session.run(None, dict(zip(names, batch, strict=True)))
        times = _node_times(Path(session.end_profiling()))
        return {node: milliseconds[-RUNS:] for node, milliseconds in times.items()}


def _node_times(profile: Path) -> _Times:
    times: _Times = defaultdict(list)
    for event in json.loads(profile.read_text()):
        if event.get("cat") == "Node" and event["name"].endswith("_kernel_time"):
            name = event["name"].removesuffix("_kernel_time")
            times[name, event["args"]["op_name"]].append(event["dur"] / 1000)
    return times


def times_by_module(file: Path, nodes: Nodes) -> dict[str, float]:
    """Return the milliseconds of a file's nodes by PyTorch module; the rest stands under ""."""
    module_of = modules_by_node(onnx.load(str(file)))
    times: dict[str, float] = defaultdict(float)
    for node, (_, milliseconds) in nodes.items():
        times[module_of.get(_plain_name(node), "")] += milliseconds
    return dict(times)


def times_by_layer(file: Path, nodes: Nodes) -> dict[tuple[str, str], float]:
    """Return the milliseconds of a file's nodes by layer and operator.

    A node that belongs to no PyTorch module stands under its own name.
    """
    module_of = modules_by_node(onnx.load(str(file)))
    operators: dict[str, str] = {}
    times: dict[str, float] = defaultdict(float)
    for node, (operator, milliseconds) in nodes.items():
        name = module_of.get(_plain_name(node), _plain_name(node))
        operators.setdefault(name, operator.removeprefix("Fused"))
        times[name] += milliseconds
    return {(name, operators[name]): time for name, time in times.items()}


def modules_by_node(model: onnx.ModelProto) -> Mapping[str, str]:
    """Map node names, and the outputs of nodes that may be fused, to PyTorch module names."""
    modules: dict[str, str] = {}
    weights = {initializer.name for initializer in model.graph.initializer}
    for node in model.graph.node:
        own = [name for name in node.input if name in weights and name.endswith(WEIGHTS)]
        module = own[0].rpartition(".weight")[0] if own and node.op_type in LAYERS else None
        if module is None and node.op_type in FUSED_INTO_PRODUCER:
            # a fused node carries the name of the last output that it swallowed
            module = next((modules[i] for i in node.input if i in modules), None)
        if module is not None:
            modules |= dict.fromkeys((node.name, *node.output), module)
    return modules


def _plain_name(node: str) -> str:
    """Return a node's name from before ONNX Runtime rewrote it."""
    return node.removeprefix("fused ").removesuffix("_nchwc")
