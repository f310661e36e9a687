"""Two 3x3 convolutions, 64 to w and w to 64 channels, timed on each runtime."""

from __future__ import annotations

from collections.abc import Callable
from time import perf_counter
from typing import Any

import numpy
import onnx
import torch
from numpy.typing import NDArray
from onnx import TensorProto, helper
from torch.nn import functional

from slimnet.measure.runtime import open_session, session_options
from slimnet.measure.torch_device import Stopwatch, occupy

AROUND = 64
SIDE = 16
TORCH_IMAGES = {"cpu": 1, "cuda": 256}  # one image would leave most of a GPU idle at every width
OCCUPIED_SECONDS = 1e-3
Timer = Callable[[], float]
"""Gives the milliseconds of two runs."""


def pair_timer(width: int, runtime: str, threads: int) -> Timer:
    """Return what times two convolutions with ``width`` channels between them on a runtime.

    Raises:
        InputError: ONNX Runtime cannot start the runtime.
    """
    if runtime.startswith("torch-"):
        return _torch_timer(width, runtime.removeprefix("torch-"))
    return _onnx_timer(width, runtime, threads)


def _weights(width: int) -> tuple[NDArray[Any], NDArray[Any]]:
    return (
        numpy.full((width, AROUND, 3, 3), 1e-3, numpy.float32),
        numpy.full((AROUND, width, 3, 3), 1e-3, numpy.float32),
    )


def _images(count: int) -> NDArray[Any]:
    shape = (count, AROUND, SIDE, SIDE)
    return numpy.random.default_rng(0).random(shape, numpy.float32)


def _torch_timer(width: int, device: str) -> Timer:
    first, second = (torch.from_numpy(weight).to(device) for weight in _weights(width))
    batch = torch.from_numpy(_images(TORCH_IMAGES[device])).to(device)
    watch = Stopwatch(device)

    def time_ms() -> float:
        occupy(device, OCCUPIED_SECONDS)
        watch.mark("pairs")
        for _ in range(2):
            functional.conv2d(functional.conv2d(batch, first, padding=1).relu_(), second, padding=1)
        watch.mark("")
        return watch.read_ms()["pairs"]

    time_ms()
    return time_ms


def _onnx_timer(width: int, runtime: str, threads: int) -> Timer:
    session = open_session(_onnx_pair(width), runtime, session_options(threads))
    batch = {"input": _images(1)}

    def time_ms() -> float:
        started = perf_counter()
        session.run(None, batch)
        session.run(None, batch)
        return 1000 * (perf_counter() - started)

    time_ms()
    return time_ms


def _onnx_pair(width: int) -> bytes:
    shape = [1, AROUND, SIDE, SIDE]
    weights = zip(_weights(width), ("first", "second"), strict=True)
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
