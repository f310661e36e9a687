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

RUNS = 12
WARM_UP_RUNS = 3
LAYERS = ("Conv", "ConvTranspose", "Gemm", "MatMul")
FUSED_INTO_PRODUCER = {"Relu", "Clip", "Sigmoid", "HardSigmoid", "Add", "Mul", "LeakyRelu", "Tanh"}


def profile_layers(
    file: Path, example: Sequence[numpy.ndarray[Any, Any]], threads: int, runtime: str
) -> dict[str, float]:
    """Return the median time of each convolution and linear layer, in milliseconds per run.

    Args:
        file: an ONNX file whose weights carry their names in the PyTorch network.
        example: one batch for each input of the network, (images, ...).
        threads: of ONNX Runtime.
        runtime: "onnxruntime-cpu" or "onnxruntime-cuda".

    Returns:
        Times by PyTorch module name; under "" everything else together. What ONNX Runtime fuses
        into a layer counts with it.

    Raises:
        InputError: ONNX Runtime cannot start the runtime.
    """
    layer_of = _layers_by_name(onnx.load(str(file)))
    times: dict[str, float] = defaultdict(float)
    with tempfile.TemporaryDirectory() as folder:
        options = session_options(threads)
        options.enable_profiling = True
        options.profile_file_prefix = str(Path(folder) / "profile")
        session = open_session(str(file), runtime, options)
        names = [wanted.name for wanted in session.get_inputs()]
        feed = dict(zip(names, example, strict=True))
        for _ in range(WARM_UP_RUNS + RUNS):
            session.run(None, feed)
        events = json.loads(Path(session.end_profiling()).read_text())
    durations: dict[str, list[float]] = defaultdict(list)
    for event in events:
        if event.get("cat") == "Node" and event["name"].endswith("_kernel_time"):
            durations[event["name"].removesuffix("_kernel_time")].append(event["dur"] / 1000)
    for node, samples in durations.items():
        layer = layer_of.get(node.removeprefix("fused ").removesuffix("_nchwc"), "")
        times[layer] += median(samples[-RUNS:])
    return dict(times)


def _layers_by_name(model: onnx.ModelProto) -> Mapping[str, str]:
    """Map node names, and names of what a fused node puts out, to PyTorch module names."""
    found: dict[str, str] = {}
    weights = {initializer.name for initializer in model.graph.initializer}
    for node in model.graph.node:
        own = [name for name in node.input if name in weights and name.endswith(".weight")]
        layer = own[0].removesuffix(".weight") if own and node.op_type in LAYERS else None
        if layer is None and node.op_type in FUSED_INTO_PRODUCER:
            # a fused node carries the name of the last output that it swallowed
            layer = next((found[i] for i in node.input if i in found), None)
        if layer is not None:
            found |= dict.fromkeys((node.name, *node.output), layer)
    return found
