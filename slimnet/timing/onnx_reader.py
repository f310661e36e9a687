"""A runtime that reads ONNX files, and times each node of one: what such runtimes have in common.

A node's time is that of a layer if it reads the layer's weight, which carries the layer's name in
the PyTorch network.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any, ClassVar, NamedTuple

import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper

from slimnet.records import Inputs, LayerLatency
from slimnet.tasks import input_tensors
from slimnet.timing.runtime import Runtime, TimedNetwork, pair_images, pair_weights

PROFILED_SESSIONS = 3  # a guess: the least that has a middle
TRANSPOSED_WEIGHT = ".weight.T"
WEIGHTS = (".weight", TRANSPOSED_WEIGHT)
LAYERS = ("Conv", "ConvTranspose", "Gemm", "MatMul")
FUSED_INTO_PRODUCER = {"Relu", "Clip", "Sigmoid", "HardSigmoid", "Add", "Mul", "LeakyRelu", "Tanh"}

NodeTimes = Mapping[tuple[str, str], Sequence[float]]
"""Milliseconds of some runs, by a node's name and operator."""


class Node(NamedTuple):
    """A node that a runtime runs, under its name in the ONNX file."""

    name: str
    operator: str
    milliseconds: float


@dataclass(frozen=True)
class OnnxReader(Runtime):
    """A runtime that reads ONNX files. A subclass opens them, and times the nodes of one."""

    reads_onnx: ClassVar[bool] = True
    # Each session has its weights and buffers somewhere else in memory, and is faster or slower
    # for it. Five is a guess.
    sessions: ClassVar[int] = 5

    @abstractmethod
    def node_times(self, file: Path, batch: Sequence[NDArray[Any]], threads: int) -> NodeTimes:
        """Return the times of a file's nodes in the runs of one session, but for its first runs.

        ``batch`` holds one array (images, ...) for each input of the network.

        Raises:
            ProofError: the file cannot be opened or run.
            RuntimeDoesNotStart: the runtime does not start here.
        """

    def onnx_name(self, node: str) -> str:
        """Return the name that a node has in the ONNX file."""
        return node

    def layer_times(
        self, networks: Sequence[TimedNetwork], batch: Inputs, threads: int
    ) -> list[dict[str, float]]:
        """Return the times of layers; see ``Runtime.layer_times``.

        The operators that the runtime fuses into a layer count with it.
        """
        files = [onnx_file(network) for network in networks]
        nodes = self._profile(files, arrays_of(batch), threads)
        return [times_by_module(*both) for both in zip(files, nodes, strict=True)]

    def compare_layers(
        self, networks: Sequence[TimedNetwork], batch: Inputs, threads: int
    ) -> tuple[LayerLatency, ...]:
        """Return the layers of two files side by side, in the order of the first.

        Nodes of which the other file has no counterpart are summed by operator.
        """
        files = [onnx_file(network) for network in networks]
        arrays = arrays_of(batch)
        nodes = self._profile(files, arrays, threads)
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

    def _profile(
        self, files: Sequence[Path], batch: Sequence[NDArray[Any]], threads: int
    ) -> list[list[Node]]:
        """Return each file's nodes with their median times. The files run in turns."""
        times: list[dict[tuple[str, str], list[float]]] = [defaultdict(list) for _ in files]
        pairs = list(zip(times, files, strict=True))
        # each session has its weights and buffers somewhere else in memory: see ``latency``
        for turn in range(PROFILED_SESSIONS):
            # A B, B A: neither always comes after the other
            for known, file in pairs if turn % 2 == 0 else reversed(pairs):
                for node, milliseconds in self.node_times(file, batch, threads).items():
                    known[node] += milliseconds
        return [
            [Node(self.onnx_name(name), operator, median(ms)) for (name, operator), ms in x.items()]
            for x in times
        ]


def onnx_file(network: TimedNetwork) -> Path:
    """Return the network's ONNX file."""
    if network.onnx is None:
        raise TypeError("this runtime needs a network's ONNX file; there is only its module")
    return network.onnx


def arrays_of(batch: Inputs) -> list[NDArray[Any]]:
    """Return the inputs of a network as arrays that share their memory."""
    return [tensor.numpy() for tensor in input_tensors(batch)]


def times_by_module(file: Path, nodes: Sequence[Node]) -> dict[str, float]:
    """Return the milliseconds of a file's nodes by PyTorch module; the rest stands under ""."""
    module_of = modules_by_node(onnx.load(str(file)))
    times: dict[str, float] = defaultdict(float)
    for node in nodes:
        times[module_of.get(node.name, "")] += node.milliseconds
    return dict(times)


def times_by_layer(file: Path, nodes: Sequence[Node]) -> dict[tuple[str, str], float]:
    """Return the milliseconds of a file's nodes by layer and operator.

    A node that belongs to no PyTorch module stands under its own name.
    """
    module_of = modules_by_node(onnx.load(str(file)))
    operators: dict[str, str] = {}
    times: dict[str, float] = defaultdict(float)
    for node in nodes:
        name = module_of.get(node.name, node.name)
        operators.setdefault(name, node.operator.removeprefix("Fused"))
        times[name] += node.milliseconds
    return {(name, operators[name]): time for name, time in times.items()}


def _in_common(
    own: Mapping[tuple[str, str], float], other: Mapping[tuple[str, str], float]
) -> dict[tuple[str, str], float]:
    """Return ``own``, with all that ``other`` does not have summed under ("", operator)."""
    times: dict[tuple[str, str], float] = defaultdict(float)
    for (layer, operator), milliseconds in own.items():
        common = (layer, operator) in other
        times[layer if common else "", operator] += milliseconds
    return dict(times)


def layers_by_output(model: onnx.ModelProto) -> Mapping[str, tuple[str, int]]:
    """Map the outputs of layers to the layer's name in PyTorch, and how many weights it has."""
    sizes = {value.name: math.prod(value.dims) for value in model.graph.initializer}
    layers: dict[str, tuple[str, int]] = {}
    for node in model.graph.node:
        own = [name for name in node.input if name in sizes and name.endswith(WEIGHTS)]
        if own and node.op_type in LAYERS:
            layers[node.output[0]] = own[0].rpartition(".weight")[0], sizes[own[0]]
    return layers


def modules_by_node(model: onnx.ModelProto) -> Mapping[str, str]:
    """Map node names, and the outputs of nodes that may be fused, to PyTorch module names."""
    modules: dict[str, str] = {}
    layers = layers_by_output(model)
    for node in model.graph.node:
        module, _ = layers.get(node.output[0], (None, 0))
        if module is None and node.op_type in FUSED_INTO_PRODUCER:
            # a fused node carries the name of the last output that it swallowed
            module = next((modules[i] for i in node.input if i in modules), None)
        if module is not None:
            modules |= dict.fromkeys((node.name, *node.output), module)
    return modules


def pair_file(width: int) -> bytes:
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
