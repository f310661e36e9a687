"""ONNX Runtime: the runtime, on the CPU or on CUDA, and an ONNX file called as a network."""

from __future__ import annotations

import json
import tempfile
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import Any, ClassVar

import onnx
import onnxruntime
import torch
from numpy.typing import NDArray
from onnx import TensorProto, helper
from torch import Tensor, nn
from torch.utils import _pytree

from slimnet.errors import ProofError
from slimnet.records import Inputs, LayerLatency
from slimnet.tasks import input_tensors
from slimnet.timing.runtime import (
    Prepare,
    Run,
    Runtime,
    RuntimeDoesNotStart,
    TimedNetwork,
    Timer,
    pair_images,
    pair_weights,
)

CPU = "CPUExecutionProvider"
PROFILED_SESSIONS = 3  # a guess: the least that has a middle
PROFILED_RUNS = 4  # of each session; a guess
WARM_UP_RUNS = 2  # a guess: the first one allocates memory
TRANSPOSED_WEIGHT = ".weight.T"
WEIGHTS = (".weight", TRANSPOSED_WEIGHT)
LAYERS = ("Conv", "ConvTranspose", "Gemm", "MatMul")
FUSED_INTO_PRODUCER = {"Relu", "Clip", "Sigmoid", "HardSigmoid", "Add", "Mul", "LeakyRelu", "Tanh"}

Nodes = Mapping[str, tuple[str, float]]
"""Operator and milliseconds of each node that ONNX Runtime runs, by the node's name."""
_Times = dict[tuple[str, str], list[float]]
"""Milliseconds of each run, by a node's name and operator."""


@dataclass(frozen=True)
class OnnxRuntime(Runtime):
    """ONNX Runtime with one execution provider."""

    provider: str
    reads_onnx: ClassVar[bool] = True
    # Each session has its weights and buffers somewhere else in memory, and is faster or slower
    # for it. Five is a guess.
    sessions: ClassVar[int] = 5

    @property
    def library(self) -> str:
        """Name and version of the library."""
        return f"onnxruntime {onnxruntime.__version__}"

    def missing(self) -> list[str]:
        """Return the parts that this machine lacks for the runtime, in words."""
        has_provider = self.provider in onnxruntime.get_available_providers()
        package = [] if has_provider else ["the package onnxruntime-gpu in place of onnxruntime"]
        return [*super().missing(), *package]

    def open(self, network: TimedNetwork, threads: int) -> Prepare:
        """Open the network's ONNX file; see ``Runtime.open``."""
        session = open_session(_file(network), session_options(threads), self.provider)
        return partial(self._prepare, session)

    def _prepare(self, session: Any, batch: Inputs, way: str) -> Run:
        """Return what runs a session on a batch, which is placed on the device."""
        binding = session.io_binding()
        arrays = _arrays(batch)
        for value, array in zip(session.get_inputs(), arrays, strict=True):
            placed = onnxruntime.OrtValue.ortvalue_from_numpy(array, self.device, 0)
            binding.bind_ortvalue_input(value.name, placed)
        for value in session.get_outputs():
            binding.bind_output(value.name, self.device)
        try:
            session.run_with_iobinding(binding)
        except Exception as error:  # onnxruntime raises many unrelated classes
            size = len(arrays[0])
            raise ProofError(f"ONNX Runtime cannot run a batch of {size}: {error}") from error
        return lambda: session.run_with_iobinding(binding)

    def layer_times(
        self, networks: Sequence[TimedNetwork], batch: Inputs, threads: int
    ) -> list[dict[str, float]]:
        """Return the times of layers; see ``Runtime.layer_times``.

        A layer is found by its weight, which carries its name in the PyTorch network. The
        operators that ONNX Runtime fuses into a layer count with it.
        """
        files = [_file(network) for network in networks]
        nodes = profile_nodes(files, _arrays(batch), threads, self.provider)
        return [times_by_module(*both) for both in zip(files, nodes, strict=True)]

    def compare_layers(
        self, networks: Sequence[TimedNetwork], batch: Inputs, threads: int
    ) -> tuple[LayerLatency, ...]:
        """Return the layers of two files side by side, in the order of the first.

        Nodes of which the other file has no counterpart are summed by operator.
        """
        files = [_file(network) for network in networks]
        arrays = _arrays(batch)
        nodes = profile_nodes(files, arrays, threads, self.provider)
        original, slim = (times_by_layer(*both) for both in zip(files, nodes, strict=True))
        original, slim = _in_common(original, slim), _in_common(slim, original)
        return tuple(
            LayerLatency(
                runtime=self.long_name,
                batch_size=len(arrays[0]),
                layer=layer,
                operator=operator,
                original_ms=original.get((layer, operator)),
                slim_ms=slim.get((layer, operator)),
            )
            for layer, operator in dict.fromkeys((*original, *slim))
        )

    def pair_timer(self, width: int, threads: int) -> Timer:
        """Return a timer of two convolutions; see ``Runtime.pair_timer``."""
        session = open_session(_pair(width), session_options(threads), self.provider)
        batch = {"input": pair_images(1)}

        def time_ms() -> float:
            started = perf_counter()
            session.run(None, batch)
            session.run(None, batch)
            return 1000 * (perf_counter() - started)

        time_ms()
        return time_ms


def _file(network: TimedNetwork) -> Path:
    if network.onnx is None:
        raise TypeError("ONNX Runtime needs a network's ONNX file; there is only its module")
    return network.onnx


def _arrays(batch: Inputs) -> list[NDArray[Any]]:
    return [tensor.numpy() for tensor in input_tensors(batch)]


def _in_common(
    own: Mapping[tuple[str, str], float], other: Mapping[tuple[str, str], float]
) -> dict[tuple[str, str], float]:
    """Return ``own``, with all that ``other`` does not have summed under ("", operator)."""
    times: dict[tuple[str, str], float] = defaultdict(float)
    for (layer, operator), milliseconds in own.items():
        common = (layer, operator) in other
        times[layer if common else "", operator] += milliseconds
    return dict(times)


def _pair(width: int) -> bytes:
    """Return the ONNX file of two convolutions with ``width`` channels between them."""
    shape = pair_images(1).shape
    weights = zip(pair_weights(width), ("first", "second"), strict=True)
    graph = helper.make_graph(
        [
            helper.make_node("Conv", ["input", "first"], ["between"], pads=[1, 1, 1, 1]),
            helper.make_node("Relu", ["between"], ["active"]),
            helper.make_node("Conv", ["active", "second"], ["output"], pads=[1, 1, 1, 1]),
        ],
        "pair",
        [helper.make_tensor_value_info("input", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("output", TensorProto.FLOAT, shape)],
        [onnx.numpy_helper.from_array(weight, name) for weight, name in weights],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    return bytes(model.SerializeToString())


def session_options(threads: int) -> Any:
    """Return options for a fixed number of threads, one operator after the other, no log."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.execution_mode = onnxruntime.ExecutionMode.ORT_SEQUENTIAL
    options.log_severity_level = 4
    # Idle threads of one session must not spin on the cores while the other is timed.
    options.add_session_config_entry("session.force_spinning_stop", "1")
    return options


def open_session(model: Path | bytes, options: Any, provider: str = CPU) -> Any:
    """Return a session for an ONNX file or its content, on the provider and no other.

    Raises:
        ProofError: ONNX Runtime cannot load the file.
        RuntimeDoesNotStart: ONNX Runtime fell back to the CPU.
    """
    name = model.name if isinstance(model, Path) else "the network"
    content = str(model) if isinstance(model, Path) else model
    try:
        session = onnxruntime.InferenceSession(content, options, providers=[provider])
    except Exception as error:  # onnxruntime raises many unrelated classes
        raise ProofError(f"ONNX Runtime cannot load {name}: {error}") from error
    # A provider whose libraries are missing falls back to the CPU without raising.
    if session.get_providers()[0] != provider:
        raise RuntimeDoesNotStart(
            f"ONNX Runtime has {provider} but cannot start it, most often because a library of "
            "CUDA or cuDNN is missing or of another version; install it, or choose another runtime"
        )
    return session


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
    for turn in range(PROFILED_SESSIONS):
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
        for _ in range(WARM_UP_RUNS + PROFILED_RUNS):
            session.run(None, dict(zip(names, batch, strict=True)))
        times = _node_times(Path(session.end_profiling()))
        return {node: milliseconds[-PROFILED_RUNS:] for node, milliseconds in times.items()}


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


class OnnxNetwork(nn.Module):
    """An ONNX file on ONNX Runtime's CPU, one thread, called as the network that it came from.

    ``form`` is any output of that network. A call puts the file's outputs together in the same
    way. Without ``form``, it returns the first output alone.

    Raises:
        ProofError: ONNX Runtime cannot load the file.
    """

    def __init__(self, path: Path, form: Any = None) -> None:
        super().__init__()
        self._session = open_session(path, session_options(1))
        self._names = [value.name for value in self._session.get_inputs()]
        self._form, self._leaves = None, None
        if form is not None:
            self._leaves, self._form = _pytree.tree_flatten(form)

    def run(self, inputs: Sequence[Tensor]) -> list[Tensor]:
        """Return all outputs for these inputs, (images, ...) each."""
        arrays = (tensor.detach().contiguous().numpy() for tensor in inputs)
        outputs = self._session.run(None, dict(zip(self._names, arrays, strict=True)))
        return [torch.from_numpy(array) for array in outputs]

    def forward(self, *inputs: Tensor, **named: Tensor) -> Any:
        """Return the outputs for inputs (images, ...), by place or by the network's own names."""
        if len(self._names) > 1:  # an only one is called "input", whatever the network calls it
            inputs += tuple(named[name] for name in self._names[len(inputs) :])
        else:
            inputs += tuple(named.values())
        outputs = self.run(inputs)
        if self._leaves is None or self._form is None:
            return outputs[0]
        rest = iter(outputs)
        leaves = [next(rest) if isinstance(leaf, Tensor) else leaf for leaf in self._leaves]
        return _pytree.tree_unflatten(leaves, self._form)
