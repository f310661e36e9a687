"""Average pools in the form that ONNX Runtime computes in its own blocked layout.

Where the last window of a pool hangs over the edge (``ceil_mode``), ONNX Runtime leaves the layout
in which it convolves, pools slowly and comes back, and its int8 pools divide by the cells beyond
the edge too. Padding that is not counted says the same.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import onnx


def pad_average_pools(proto: onnx.ModelProto) -> None:
    """Change a file to write each ``ceil_mode`` of an average pool as padding at the far side.

    The values are the same: what hangs over the edge is not counted either way. A pool whose input
    has no fixed size, or that counts padding of its own, stays as it is.
    """
    sizes = _spatial_sizes(proto)
    for node in proto.graph.node:
        if node.op_type != "AveragePool" or node.input[0] not in sizes:
            continue
        given = {each.name: onnx.helper.get_attribute_value(each) for each in node.attribute}
        found = _without_ceil_mode(given, sizes[node.input[0]])
        if found != given:
            del node.attribute[:]
            node.attribute.extend(onnx.helper.make_attribute(*each) for each in found.items())


def _without_ceil_mode(attributes: Mapping[str, Any], sizes: Sequence[int]) -> Mapping[str, Any]:
    """Return the same pool without ``ceil_mode``, or the same attributes where there is none."""
    dilated = any(dilation != 1 for dilation in attributes.get("dilations", ()))
    automatic = attributes.get("auto_pad", b"NOTSET") != b"NOTSET"
    if not attributes.get("ceil_mode") or dilated or automatic:
        return attributes
    kernel, axes = attributes["kernel_shape"], len(sizes)
    strides, pads = attributes.get("strides", [1] * axes), attributes.get("pads", [0] * 2 * axes)
    before, after = pads[:axes], pads[axes:]
    over = [_overhang(*axis) for axis in zip(sizes, kernel, strides, before, after, strict=True)]
    if not any(over):
        return {**attributes, "ceil_mode": 0}
    if any(pads) and attributes.get("count_include_pad"):
        return attributes  # its own padding is counted, and what hangs over is not
    padded = [*before, *(pad + more for pad, more in zip(after, over, strict=True))]
    return {**attributes, "ceil_mode": 0, "count_include_pad": 0, "pads": padded}


def _overhang(size: int, kernel: int, stride: int, before: int, after: int) -> int:
    """Return by how much the last window reaches beyond the padded input, along one axis."""
    windows = -(-(size + before + after - kernel) // stride) + 1
    if (windows - 1) * stride >= size + before:
        windows -= 1  # none begins beyond the input
    return max(0, (windows - 1) * stride + kernel - (size + before + after))


def _spatial_sizes(proto: onnx.ModelProto) -> dict[str, list[int]]:
    """Return height and width, or what there is of them, of all values where they are fixed."""
    sizes = {}
    for value in (*proto.graph.input, *proto.graph.value_info):
        dimensions = value.type.tensor_type.shape.dim[2:]
        if dimensions and all(dimension.HasField("dim_value") for dimension in dimensions):
            sizes[value.name] = [dimension.dim_value for dimension in dimensions]
    return sizes
