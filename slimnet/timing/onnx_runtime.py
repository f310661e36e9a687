"""ONNX Runtime as a runtime, on the CPU or on CUDA."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter
from typing import Any, ClassVar

import onnx
import onnxruntime
from numpy.typing import NDArray
from onnx import TensorProto, helper

from slimnet.errors import ProofError
from slimnet.records import Inputs, LayerLatency
from slimnet.tasks import input_tensors
from slimnet.timing.onnx_profile import profile_nodes, times_by_layer, times_by_module
from slimnet.timing.onnx_session import open_session, session_options
from slimnet.timing.runtime import (
    Run,
    Runtime,
    TimedNetwork,
    Timer,
    pair_images,
    pair_weights,
)


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

    def open(self, network: TimedNetwork, threads: int) -> OnnxSession:
        """Open the network's ONNX file; see ``Runtime.open``."""
        session = open_session(_file(network), session_options(threads), self.provider)
        return OnnxSession(session, self.device)

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


@dataclass(frozen=True)
class OnnxSession:
    """An ONNX file opened in ONNX Runtime."""

    session: Any
    device: str

    def prepare(self, batch: Inputs, way: str) -> Run:
        """Return what runs the network on a batch, which lies on the device already."""
        binding = self.session.io_binding()
        arrays = _arrays(batch)
        for value, array in zip(self.session.get_inputs(), arrays, strict=True):
            placed = onnxruntime.OrtValue.ortvalue_from_numpy(array, self.device, 0)
            binding.bind_ortvalue_input(value.name, placed)
        for value in self.session.get_outputs():
            binding.bind_output(value.name, self.device)
        try:
            self.session.run_with_iobinding(binding)
        except Exception as error:  # onnxruntime raises many unrelated classes
            size = len(arrays[0])
            raise ProofError(f"ONNX Runtime cannot run a batch of {size}: {error}") from error
        return lambda: self.session.run_with_iobinding(binding)


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
