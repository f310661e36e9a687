"""Which layer widths pay on a runtime: those below which the next channels really save time."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import median
from time import perf_counter
from typing import Any

import numpy
import onnx
import onnxruntime
from onnx import TensorProto, helper

from slimnet.measure.runtime import PROVIDERS, session_options

WIDEST = 128
STEP = 4
AROUND = 64
SIDE = 16
ROUNDS = 11
WORTH = 0.5


def measure_paying_widths(runtime: str, threads: int) -> tuple[int, ...]:
    """Return the widths up to 128, ascending, that a layer should have on this runtime.

    Two 3x3 convolutions, 64 to w and w to 64 channels, are timed for w in steps of four. Going
    down from the widest, a width pays when it saves at least half of the time that its channels
    should, seen from the last width that paid.
    """
    widths = list(range(WIDEST, 0, -STEP))
    return choose_widths(widths, _time_widths(widths, runtime, threads))


def choose_widths(widths: Sequence[int], times: Sequence[float]) -> tuple[int, ...]:
    """Return the widths that pay, ascending, from times at descending widths (any unit)."""
    per_channel = (times[0] - times[-1]) / (widths[0] - widths[-1])
    paying = [0]
    for number in range(1, len(widths)):
        last = paying[-1]
        saved = times[last] - times[number]
        if saved >= WORTH * per_channel * (widths[last] - widths[number]):
            paying.append(number)
    return tuple(sorted(widths[number] for number in paying))


def next_lower_width(width: int, paying: Sequence[int]) -> int:
    """Return the widest paying width below ``width``, or 0 if there is none.

    Above the measured widths the last step between two paying ones repeats.
    """
    if not paying:
        return width - 1
    if width <= paying[-1]:
        return max((w for w in paying if w < width), default=0)
    step = paying[-1] - paying[-2] if len(paying) > 1 else 1
    return paying[-1] + (width - 1 - paying[-1]) // step * step


def _time_widths(widths: Sequence[int], runtime: str, threads: int) -> list[float]:
    runs = [_pair(width, runtime, threads) for width in widths]
    samples: list[list[float]] = [[] for _ in runs]
    for _ in range(ROUNDS):  # interleaved, so that a slow moment hits all widths alike
        for times, run in zip(samples, runs, strict=True):
            started = perf_counter()
            run()
            run()
            times.append(perf_counter() - started)
    return [median(times) for times in samples]


def _pair(width: int, runtime: str, threads: int) -> Any:
    shape = [1, AROUND, SIDE, SIDE]
    weights = (
        numpy.full((width, AROUND, 3, 3), 1e-3, numpy.float32),
        numpy.full((AROUND, width, 3, 3), 1e-3, numpy.float32),
    )
    graph = helper.make_graph(
        [
            helper.make_node("Conv", ["input", "first"], ["between"], pads=[1, 1, 1, 1]),
            helper.make_node("Relu", ["between"], ["active"]),
            helper.make_node("Conv", ["active", "second"], ["output"], pads=[1, 1, 1, 1]),
        ],
        "pair",
        [helper.make_tensor_value_info("input", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("output", TensorProto.FLOAT, shape)],
        [
            onnx.numpy_helper.from_array(weight, name)
            for weight, name in zip(weights, ("first", "second"), strict=True)
        ],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), session_options(threads), providers=[PROVIDERS[runtime]]
    )
    batch = {"input": numpy.random.default_rng(0).random(shape, numpy.float32)}
    session.run(None, batch)
    return lambda: session.run(None, batch)
