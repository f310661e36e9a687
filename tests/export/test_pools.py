"""Average pools with windows beyond the edge: written with padding, computed the same."""

from __future__ import annotations

from itertools import product

import numpy
import onnx
import onnx_ir as ir
import pytest
import torch
from torch import nn

from slimnet.export.onnx_file import translate, write_onnx
from slimnet.export.to_onnx import _overhang, pad_average_pools
from slimnet.timing.onnx_runtime import open_session, session_options


def export(tmp_path, pool, size):
    path = tmp_path / "pool.onnx"
    model = nn.Sequential(nn.Conv2d(2, 3, 1), pool).eval()
    file = write_onnx(translate(model, torch.randn(3, 2, *size), 20), path, {})
    # ONNX Runtime gives what PyTorch does
    assert all(parity.relative_error <= 1e-6 for parity in file.parity.values())
    (node,) = [node for node in onnx.load(str(path)).graph.node if node.op_type == "AveragePool"]
    return {each.name: onnx.helper.get_attribute_value(each) for each in node.attribute}


def test_cells_beyond_the_edge_become_padding_that_is_not_counted(tmp_path):
    attributes = export(tmp_path, nn.AvgPool2d(3, 2, ceil_mode=True), (8, 9))
    assert (attributes["ceil_mode"], attributes["count_include_pad"]) == (0, 0)
    assert attributes["pads"] == [0, 0, 1, 0]


@pytest.mark.parametrize(("kernel", "size"), [(2, (6, 6)), (3, (7, 5))])
def test_a_pool_that_fits_only_loses_ceil_mode(tmp_path, kernel, size):
    attributes = export(tmp_path, nn.AvgPool2d(kernel, 2, ceil_mode=True), size)
    assert attributes["ceil_mode"] == 0
    assert not any(attributes["pads"])


def test_own_padding_that_is_not_counted_stays(tmp_path):
    pool = nn.AvgPool2d(3, 2, padding=1, ceil_mode=True, count_include_pad=False)
    attributes = export(tmp_path, pool, (8, 8))
    assert attributes["ceil_mode"] == 0
    assert attributes["pads"] == [1, 1, 2, 2]


def pool_alone(size, attributes):
    """Return a file of one pool as ONNX has it, of images of this size."""
    images, out = (
        onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, [1, 1, *shape])
        for name, shape in (("input", size), ("output", ["h", "w"]))
    )
    node = onnx.helper.make_node("AveragePool", ["input"], ["output"], **attributes)
    graph = onnx.helper.make_graph([node], "pool", [images], [out])
    opset = [onnx.helper.make_opsetid("", 20)]
    return onnx.helper.make_model(graph, opset_imports=opset, ir_version=10)


def padded(proto):
    model = ir.from_proto(proto)
    pad_average_pools(model)
    return ir.to_proto(model)


def run(proto, image):
    session = open_session(proto.SerializeToString(), session_options(1))
    return session.run(None, {"input": image})[0]


@pytest.mark.parametrize("kernel", [1, 2, 3, 4])
def test_the_values_are_those_of_ceil_mode(kernel):
    changed = 0
    for size, stride, pad in product(range(4, 10), (1, 2, 3), range(kernel)):
        counted = pad == 0
        attributes = {"kernel_shape": [kernel, 3], "strides": [stride, 2], "ceil_mode": 1}
        attributes |= {"pads": [pad, 0, pad, 0], "count_include_pad": int(counted)}
        image = numpy.random.default_rng(size).normal(size=(1, 1, size, 7)).astype("float32")
        proto = pool_alone((size, 7), attributes)
        before = run(proto, image)
        proto = padded(proto)
        (node,) = proto.graph.node
        changed += not any(each.name == "ceil_mode" and each.i for each in node.attribute)
        numpy.testing.assert_allclose(run(proto, image), before, atol=1e-6)
    assert changed


@pytest.mark.parametrize(
    "attributes",
    [
        {"ceil_mode": 0},
        {"dilations": [2, 2]},
        {"auto_pad": "SAME_UPPER"},
        {"pads": [1, 1, 1, 1], "count_include_pad": 1},
    ],
)
def test_a_pool_that_padding_cannot_replace_stays(attributes):
    proto = pool_alone(
        (8, 8), {"kernel_shape": [3, 3], "strides": [2, 2], "ceil_mode": 1, **attributes}
    )
    assert padded(proto).graph.node == proto.graph.node


def test_an_input_of_any_size_stays():
    proto = pool_alone(("h", "w"), {"kernel_shape": [3, 3], "strides": [2, 2], "ceil_mode": 1})
    assert padded(proto).graph.node == proto.graph.node


def test_no_window_begins_beyond_the_input():
    assert _overhang(size=5, kernel=2, stride=3, before=0, after=0) == 0
    assert _overhang(size=4, kernel=1, stride=3, before=0, after=0) == 0
    assert _overhang(size=7, kernel=2, stride=3, before=0, after=0) == 1
