"""OpenVINO as a runtime, on the CPU. It reads the ONNX file, and needs the package ``openvino``."""

from __future__ import annotations

import importlib
import sys
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, partial
from importlib.util import find_spec
from pathlib import Path
from time import perf_counter
from typing import Any, ClassVar

import onnx
import torch
from numpy.typing import NDArray
from torch import Tensor

from slimnet.errors import ProofError
from slimnet.records import Inputs
from slimnet.timing.onnx_reader import (
    NodeTimes,
    OnnxReader,
    arrays_of,
    layers_by_output,
    onnx_file,
    pair_file,
)
from slimnet.timing.runtime import Prepare, Run, TimedNetwork, Timer, pair_images

PACKAGE, TELEMETRY = "openvino", "openvino_telemetry"
PROFILED_RUNS = 8  # of each session; a guess: whole microseconds are known of their mean
WARM_UP_RUNS = 2  # a guess: the first one allocates memory
MICROSECONDS = 1000  # in a millisecond


@dataclass(frozen=True)
class OpenVino(OnnxReader):
    """OpenVINO on the CPU, in float32, with its own settings for a low latency.

    A file is compiled for the batch size that it runs at, as OpenVINO's makers advise.
    """

    checks_outputs: ClassVar[bool] = True

    @property
    def library(self) -> str:
        """Name and version of the library, with the number of its build."""
        return f"{PACKAGE} {'-'.join(_openvino().__version__.split('-')[:2])}"

    def missing(self) -> list[str]:
        """Return the parts that this machine lacks for the runtime, in words."""
        found = find_spec(PACKAGE)
        # any folder of that name is found, too, but has no origin
        there = found is not None and found.origin is not None
        return [] if there else [f"the package {PACKAGE}: pip install {PACKAGE}"]

    def open(self, network: TimedNetwork, threads: int) -> Prepare:
        """Open the network's ONNX file; see ``Runtime.open``."""
        return partial(self._prepare, _read(onnx_file(network)), _settings(threads))

    def _prepare(self, model: Any, settings: Mapping[str, Any], batch: Inputs, way: str) -> Run:
        """Return what runs a network on a batch."""
        return partial(_run, _request(model, arrays_of(batch), settings))

    def outputs(self, network: TimedNetwork, batch: Inputs, threads: int) -> Sequence[Tensor]:
        """Return the network's outputs on a batch; see ``Runtime.outputs``."""
        request = _request(_read(onnx_file(network)), arrays_of(batch), _settings(threads))
        return [torch.from_numpy(output.data.copy()) for output in request.output_tensors]

    def node_times(self, file: Path, batch: Sequence[NDArray[Any]], threads: int) -> NodeTimes:
        """Return the mean time of each node; see ``OnnxReader.node_times``.

        The time of a node that computes several layers is divided among them by their weights.
        """
        names = _Names(onnx.load(str(file)))
        request = _request(_read(file), batch, {**_settings(threads), "PERF_COUNT": True})
        for _ in range(WARM_UP_RUNS - 1):
            _run(request)
        before = _total_ms(request, WARM_UP_RUNS)
        for _ in range(PROFILED_RUNS):
            _run(request)
        after = _total_ms(request, WARM_UP_RUNS + PROFILED_RUNS)
        fused = _fused_names(request)
        times: dict[tuple[str, str], float] = defaultdict(float)
        for (node, operator), total in after.items():
            milliseconds = (total - before[node, operator]) / PROFILED_RUNS
            for name, share in names.shares(node, operator, fused.get(node, ())):
                times[name] += share * max(0.0, milliseconds)
        return {name: [milliseconds] for name, milliseconds in times.items()}

    def pair_timer(self, width: int, threads: int) -> Timer:
        """Return a timer of two convolutions; see ``Runtime.pair_timer``."""
        model = _core().read_model(pair_file(width))
        request = _request(model, [pair_images(1)], _settings(threads))

        def time_ms() -> float:
            started = perf_counter()
            _run(request)
            _run(request)
            return 1000 * (perf_counter() - started)

        time_ms()
        return time_ms


@cache
def _openvino() -> Any:
    """Return the package, imported without its telemetry.

    It would report each import, and the conversion of models, to its makers. Where it has been
    imported before, it stays as it is.
    """
    if PACKAGE in sys.modules or TELEMETRY in sys.modules:
        return importlib.import_module(PACKAGE)
    sys.modules[TELEMETRY] = None  # type: ignore[assignment]  # no such package, for this import
    try:
        return importlib.import_module(PACKAGE)
    finally:
        del sys.modules[TELEMETRY]


@cache
def _core() -> Any:
    return _openvino().Core()


def _settings(threads: int) -> dict[str, Any]:
    """Return the properties of a compiled model that runs one batch after the other."""
    return {
        "PERFORMANCE_HINT": "LATENCY",
        "INFERENCE_PRECISION_HINT": "f32",  # a processor with bfloat16 would take that
        "INFERENCE_NUM_THREADS": threads,
    }


def _read(file: Path) -> Any:
    """Return the model in an ONNX file.

    Raises:
        ProofError: OpenVINO cannot load the file.
    """
    try:
        return _core().read_model(file)
    except Exception as error:  # of classes without a common name
        raise ProofError(f"OpenVINO cannot load {file.name}: {_one_line(error)}") from error


def _request(model: Any, batch: Sequence[NDArray[Any]], settings: Mapping[str, Any]) -> Any:
    """Compile a model for the shapes of a batch, and return a request that has run on it once.

    The model gets these shapes.

    Raises:
        ProofError: OpenVINO cannot run the batch.
    """
    try:
        shapes = zip(model.inputs, batch, strict=True)
        model.reshape({value: list(array.shape) for value, array in shapes})
        request = _core().compile_model(model, "CPU", settings).create_infer_request()
        for number, array in enumerate(batch):
            request.set_input_tensor(number, _openvino().Tensor(array))
        _run(request)
    except Exception as error:  # of classes without a common name
        raise ProofError(
            f"OpenVINO cannot run a batch of {len(batch[0])}: {_one_line(error)}"
        ) from error
    return request


def _run(request: Any) -> None:
    request.infer(share_outputs=True)  # they are not copied


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())


def _total_ms(request: Any, runs: int) -> dict[tuple[str, str], float]:
    """Return the milliseconds of all runs so far by name and operator of the nodes that ran.

    OpenVINO gives the mean over all runs since the model was compiled.
    """
    executed = _openvino().ProfilingInfo.Status.EXECUTED
    times: dict[tuple[str, str], float] = defaultdict(float)
    for node in request.profiling_info:
        if node.status != executed:
            continue
        microseconds = node.real_time.total_seconds() * 1e6
        times[node.node_name, node.node_type] += runs * microseconds / MICROSECONDS
    return times


def _fused_names(request: Any) -> dict[str, list[str]]:
    """Return the names of the operators that each node computes."""
    found = {}
    for node in request.get_compiled_model().get_runtime_model().get_ordered_ops():
        info = node.get_rt_info()
        if "originalLayersNames" in info:
            found[node.get_friendly_name()] = info["originalLayersNames"].value.split(",")
    return found


class _Names:
    """The names that an ONNX file has for the nodes that OpenVINO made of its own."""

    def __init__(self, model: onnx.ModelProto) -> None:
        self._nodes: dict[str, onnx.NodeProto] = {}
        for node in model.graph.node:
            # OpenVINO calls a node so, or by its output where it has no name or ends the network
            self._nodes |= dict.fromkeys(filter(None, (node.name, *node.output)), node)
        self._layers = layers_by_output(model)

    def shares(
        self, node: str, operator: str, fused: Sequence[str]
    ) -> Iterator[tuple[tuple[str, str], float]]:
        """Yield name and operator of the ONNX nodes that a node computes, and each one's share."""
        own = [self._nodes[name] for name in (node, *fused) if name in self._nodes]
        layers = {x.output[0]: x for x in own if x.output[0] in self._layers}
        total = sum(self._layers[output][1] for output in layers)
        for output, layer in layers.items():
            yield (layer.name or output, layer.op_type), self._layers[output][1] / total
        if not layers:
            name = (own[0].name or own[0].output[0], own[0].op_type) if own else (node, operator)
            yield name, 1.0
