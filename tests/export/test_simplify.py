"""Files of networks without a branch: nothing of it is in them, and they compute the same."""

from __future__ import annotations

import onnx
import pytest
import torch
from branching import ALL, Net, NoBias, Plain, Projection, Transformer, conv
from torch import nn

from slimnet.export.artefacts import save_program
from slimnet.export.layer_timer import layer_timer
from slimnet.export.onnx_file import translate, write_onnx
from slimnet.export.tracing import trace
from slimnet.groups.branches import branches_of, find_branches
from slimnet.groups.cut import slim_copy
from slimnet.groups.find import find_groups
from slimnet.options import Options

IMAGES = torch.randn(3, 3, 8, 8, generator=torch.Generator().manual_seed(0))


def built(build, zeros=False):
    """Return a network and the slim ones that are left when each of its branches goes."""
    torch.manual_seed(0)
    model = build().eval()
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d) and not zeros:
            nn.init.uniform_(module.bias)
            nn.init.uniform_(module.running_mean)
    groups, _ = find_groups(model, IMAGES[:2], layers="all")
    branches, _ = find_branches(model, groups, IMAGES[:2])
    return model, [(branch, slim_copy(model, branch.plan(groups))) for branch in branches]


def operators(model):
    return [node.target for node in trace(model, IMAGES).graph.nodes if node.op == "call_function"]


@pytest.mark.parametrize("case", ALL, ids=lambda case: case.name)
def test_nothing_of_a_branch_is_in_the_files(case, tmp_path):
    for branch, slim in built(case.build)[1]:
        translated = translate(slim, IMAGES[:2], 20)
        # both are compared with PyTorch before they get their names
        write_onnx(translated, tmp_path / "slim.onnx", {}, check_batches=(1, 3), inputs=IMAGES)
        save_program(translated, tmp_path / "slim.pt2")
        proto = onnx.shape_inference.infer_shapes(onnx.load(tmp_path / "slim.onnx"))
        for value in proto.graph.initializer:
            assert 0 not in value.dims
            assert value.name.split(".")[0] not in (*branch.gone, *branch.constant)
        for value in (*proto.graph.value_info, *proto.graph.input, *proto.graph.output):
            shape = value.type.tensor_type.shape.dim
            assert all(size.dim_param or size.dim_value for size in shape), value.name
        assert not {node.op_type for node in proto.graph.node} & {"Expand", "ConstantOfShape"}
        stored = {name.split(".")[0] for name in translated.program.state_dict}
        assert not stored & set(branch.gone)


def test_a_constant_is_added_as_it_is():
    _, [(_, slim)] = built(Projection)
    program = trace(slim, IMAGES)
    (constant,) = program.constants.values()
    assert constant.shape == (1, 8, 1, 1)
    x = IMAGES.new_zeros(1, 6, 8, 8)
    expected = slim.after(slim.outer(slim.inner(x)))[:, :, :1, :1]
    assert torch.allclose(constant, expected, atol=1e-6)


def test_zeros_are_not_added_and_a_second_relu_goes():
    _, [(_, slim)] = built(NoBias, zeros=True)
    assert operators(slim) == [
        torch.ops.aten.conv2d.default,
        torch.ops.aten.relu.default,
        torch.ops.aten.mean.dim,
        torch.ops.aten.linear.default,
    ]


def test_zeros_of_the_wrong_shape_and_of_another_use_stay():
    class Other(Net):
        """The branch gives the shape: the stream is repeated along it."""

        def __init__(self):
            super().__init__(
                stem=conv(3, 6), inner=conv(6, 4), outer=conv(4, 6, bias=False),
                second=conv(6, 4), last=conv(4, 6, bias=False), head=nn.Linear(6, 3),
            )  # fmt: skip

        def forward(self, x):
            x = self.stem(x).relu()
            y = x.mean((2, 3), keepdim=True) + self.outer(self.inner(x).relu())
            y = y * (1 + self.last(self.second(y).relu()))
            return self.head(y.relu().mean((2, 3)))

    model, slims = built(Other)
    assert [branch.name for branch, _ in slims] == ["inner", "second"]
    for _, slim in slims:
        program = trace(slim, IMAGES).module()
        assert torch.allclose(program(IMAGES), slim(IMAGES), atol=1e-6)
    assert not torch.allclose(slims[0][1](IMAGES), model(IMAGES))


def test_names_of_linear_layers_survive(tmp_path):
    for branch, slim in built(Transformer)[1]:
        write_onnx(translate(slim, IMAGES[:2], 20), tmp_path / "slim.onnx", {})
        names = {value.name for value in onnx.load(tmp_path / "slim.onnx").graph.initializer}
        left = {"q", "k", "v", "out"} if branch.name == "up" else {"up", "down"}
        assert {f"{name}.weight.T" for name in left} <= names


def test_a_network_without_removed_layers_is_traced_as_ever():
    model, _ = built(Plain)
    assert torch.ops.aten.add_.Tensor in operators(model)


def test_layers_are_timed_in_a_file_without_the_branch():
    model, [(_, slim)] = built(Plain)
    time_layers = layer_timer(translate(model, IMAGES[:2], 20), Options())
    with torch.no_grad():  # so small that a file with the branch would compute nearly the same
        model.outer.weight.mul_(1e-9)
    assert {"inner", "outer"} <= set(time_layers(model))
    assert not {"inner", "outer"} & set(time_layers(slim))
    assert {"inner", "outer"} <= set(time_layers(model))
    assert branches_of(slim, []) == []
