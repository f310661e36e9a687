"""What ONNX files take, whoever wrote them, and inputs made for them."""

import onnx
import pytest
import torch
from onnx import TensorProto, helper

from slimnet.data.inputs import common_inputs, made_up_onnx_inputs
from slimnet.errors import InputError


def write(path, *inputs, dtype=TensorProto.FLOAT):
    """An ONNX file of these (name, shape); its outputs are copies of its inputs."""
    values = [helper.make_tensor_value_info(name, dtype, shape) for name, shape in inputs]
    outputs = [helper.make_tensor_value_info(f"{n}_out", dtype, shape) for n, shape in inputs]
    nodes = [helper.make_node("Identity", [name], [f"{name}_out"]) for name, _ in inputs]
    graph = helper.make_graph(nodes, "copies", values, outputs)
    opset = helper.make_opsetid("", 20)
    onnx.save(helper.make_model(graph, opset_imports=[opset], ir_version=10), path)
    return path


def shapes(folder, first, second, shape=None):
    one = write(folder / "one.onnx", ("x", first))
    two = write(folder / "two.onnx", ("other", second))
    return [entry.shape for entry in common_inputs(one, two, shape)]


def test_what_one_file_leaves_open_the_other_or_the_user_says(tmp_path):
    assert shapes(tmp_path, ["n", 3, 8, 8], [None, 3, 8, 8]) == [(None, 3, 8, 8)]
    assert shapes(tmp_path, ["n", 3, "h", "w"], [4, 3, 8, 8]) == [(4, 3, 8, 8)]
    assert shapes(tmp_path, ["n", 3, "h", 8], ["n", 3, "h", "w"], (3, 6, 8)) == [(None, 3, 6, 8)]


@pytest.mark.parametrize(
    ("first", "second", "shape", "told"),
    [
        (["n", 3, "h", "w"], ["n", 3, "h", "w"], None, "one x is left open by the file, 3,?,?"),
        (["n", 3, 8, 8], ["n", 1, 8, 8], None, "takes x float32 (?,3,8,8), and"),
        ([1, 3], [2, 3], None, "on the same inputs only"),
        (["n", 3], ["n", 3, 8, 8], None, "on the same inputs only"),
        (["n", 3, 8, 8], ["n", 3, 8, 8], (3, 9, 9), "one x has the shape 3,8,8; got 3,9,9"),
        (["n", 3, 8, 8], ["n", 3, 8, 8], (8, 8), "got 8,8"),
        (["n", 3, "h"], ["n", 3, "h"], (3, -1), "whole numbers of 1 or more"),
        ([], [], None, "first axis is the batch"),
    ],
)
def test_what_does_not_fit_is_told_in_one_line(tmp_path, first, second, shape, told):
    with pytest.raises(InputError) as refused:
        shapes(tmp_path, first, second, shape)
    assert told in str(refused.value)
    assert "\n" not in str(refused.value)


def test_several_inputs_share_the_shape_that_is_given(tmp_path):
    words = [("ids", ["n", "words"]), ("mask", ["n", "words"])]
    path = write(tmp_path / "words.onnx", *words, dtype=TensorProto.INT64)
    wanted = common_inputs(path, path, (7,))
    made = made_up_onnx_inputs(wanted, seed=0)
    assert [(t.shape, t.dtype, int(t.sum())) for t in made] == [((2, 7), torch.int64, 0)] * 2


def test_noise_is_of_the_type_wanted_and_seeded(tmp_path):
    path = write(tmp_path / "half.onnx", ("x", ["n", 3]), dtype=TensorProto.FLOAT16)
    wanted = common_inputs(path, path, None)
    (one,), (again,), (other,) = (made_up_onnx_inputs(wanted, seed) for seed in (1, 1, 2))
    assert (one.dtype, one.shape) == (torch.float16, (2, 3))
    assert torch.equal(one, again)
    assert not torch.equal(one, other)


@pytest.mark.parametrize("content", [b"", b"no onnx", b"\x00" * 40])
def test_a_file_that_is_no_network_is_refused(tmp_path, content):
    good = write(tmp_path / "good.onnx", ("x", ["n", 3]))
    (tmp_path / "bad.onnx").write_bytes(content)
    with pytest.raises(InputError, match=r"bad\.onnx"):
        common_inputs(good, tmp_path / "bad.onnx", None)


def test_inputs_that_cannot_be_made_up_are_refused(tmp_path):
    path = write(tmp_path / "text.onnx", ("x", ["n", 3]), dtype=TensorProto.STRING)
    with pytest.raises(InputError, match="cannot be made up"):
        common_inputs(path, path, None)
