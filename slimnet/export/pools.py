"""Average pools in the form that ONNX Runtime computes in its own blocked layout.

Where the last window of a pool hangs over the edge (``ceil_mode``), ONNX Runtime leaves the layout
in which it convolves, pools slowly and comes back. Padding that is not counted says the same.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import onnx

Sizes = Mapping[str, Sequence[int]]


def pad_average_pools(proto: onnx.ModelProto) -> None:
    """Change a file to write each ``ceil_mode`` of an average pool as padding at the far side.

    The values are the same: what hangs over the edge is not counted either way. A pool whose input
    has no fixed size, or that counts padding of its own, stays as it is.
    """
    sizes = _spatial_sizes(proto)
    for node in proto.graph.node:
        if node.op_type != "AveragePool" or node.input[0] not in sizes:
            continue
        dials = {dial.name: onnx.helper.get_attribute_value(dial) for dial in node.attribute}
        found = _without_ceil_mode(dials, sizes[node.input[0]])
        if found != dials:
            del node.attribute[:]
            node.attribute.extend(onnx.helper.make_attribute(*dial) for dial in found.items())


def _without_ceil_mode(dials: Mapping[str, Any], sizes: Sequence[int]) -> Mapping[str, Any]:
    """Return the same pool without ``ceil_mode``, or the same dials where there is none."""
    dilated = any(dilation != 1 for dilation in dials.get("dilations", ()))
    automatic = dials.get("auto_pad", b"NOTSET") != b"NOTSET"
    if not dials.get("ceil_mode") or dilated or automatic:
        return dials
    kernel, axes = dials["kernel_shape"], len(sizes)
    strides, pads = dials.get("strides", [1] * axes), dials.get("pads", [0] * 2 * axes)
    before, after = pads[:axes], pads[axes:]
    over = [_overhang(*axis) for axis in zip(sizes, kernel, strides, before, after, strict=True)]
    if not any(over):
        return {**dials, "ceil_mode": 0}
    if any(pads) and dials.get("count_include_pad"):
        return dials  # its own padding is counted, and what hangs over is not
    padded = [*before, *(pad + more for pad, more in zip(after, over, strict=True))]
    return {**dials, "ceil_mode": 0, "count_include_pad": 0, "pads": padded}


def _overhang(size: int, kernel: int, stride: int, before: int, after: int) -> int:
    """Return by how much the last window reaches beyond the padded input, along one axis."""
    windows = -(-(size + before + after - kernel) // stride) + 1
    if (windows - 1) * stride >= size + before:
        windows -= 1  # none begins beyond the input
    return max(0, (windows - 1) * stride + kernel - (size + before + after))


def _spatial_sizes(proto: onnx.ModelProto) -> Sizes:
    """Return height and width, or what there is of them, of all values where they are fixed."""
    sizes = {}
    for value in (*proto.graph.input, *proto.graph.value_info):
        dimensions = value.type.tensor_type.shape.dim[2:]
        if dimensions and all(dimension.HasField("dim_value") for dimension in dimensions):
            sizes[value.name] = [dimension.dim_value for dimension in dimensions]
    return sizes
