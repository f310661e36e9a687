"""Layer times of two ONNX files side by side, matched by name where these have one in common."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path

import onnx

from slimnet.measure.forward import fill_batch, input_tensors
from slimnet.measure.profile import layers_by_name, plain_name, profile_nodes
from slimnet.records import Inputs, LayerLatency

Layers = Mapping[str, tuple[str, float]]
"""Operator and milliseconds by name."""


def profile_pair(
    original: Path, slim: Path, example: Inputs, batch_size: int, threads: int, runtime: str
) -> tuple[LayerLatency, ...]:
    """Return how long each layer takes in both files, run in turns, in the order of the first.

    ``example`` (images, ...) is repeated to fill a batch; ``runtime`` is one of ONNX Runtime's.
    A node belongs to the PyTorch module that its weight is named after; elsewhere it stands under
    its own name. What has no counterpart of that name is summed by operator.

    Raises:
        InputError: ONNX Runtime cannot start the runtime.
    """
    files = (original, slim)
    arrays = [tensor.numpy() for tensor in input_tensors(fill_batch(example, batch_size))]
    profiles = profile_nodes(files, arrays, threads, runtime)
    before, after = (_by_layer(*both) for both in zip(files, profiles, strict=True))
    before, after = _matched(before, after), _matched(after, before)
    return tuple(
        LayerLatency(
            runtime=runtime,
            batch_size=batch_size,
            layer=layer,
            operator=operator,
            original_ms=before.get((layer, operator)),
            slim_ms=after.get((layer, operator)),
        )
        for layer, operator in dict.fromkeys((*before, *after))
    )


def _by_layer(file: Path, nodes: Layers) -> dict[tuple[str, str], float]:
    """Return milliseconds by layer, or node where no layer is known, and operator."""
    layer_of = layers_by_name(onnx.load(str(file)))
    operators: dict[str, str] = {}
    times: dict[str, float] = defaultdict(float)
    for node, (operator, milliseconds) in nodes.items():
        name = layer_of.get(plain_name(node), plain_name(node))
        operators.setdefault(name, operator.removeprefix("Fused"))
        times[name] += milliseconds
    return {(name, operators[name]): time for name, time in times.items()}


def _matched(
    own: Mapping[tuple[str, str], float], other: Mapping[tuple[str, str], float]
) -> dict[tuple[str, str], float]:
    """Return ``own``, with all that ``other`` does not have summed under ("", operator)."""
    times: dict[tuple[str, str], float] = defaultdict(float)
    for (layer, operator), milliseconds in own.items():
        common = (layer, operator) in other
        times[layer if common else "", operator] += milliseconds
    return dict(times)
