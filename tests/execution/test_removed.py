"""Layers without outputs or inputs: the shapes and the values of the layer that they stand for."""

from __future__ import annotations

import copy
import io

import pytest
import torch
from torch import nn

from slimnet.execution.removed import ConstantOutput, NoChannels, removed_layers, replace_module
from slimnet.load import SamePaddedConv2d

IMAGES, SIGNALS, VOLUMES = (2, 4, 9, 8), (2, 4, 9), (2, 4, 5, 6, 7)


def padded_at_the_end():
    """A convolution as loading makes it of one that pads (0, 1) by itself."""
    layer = nn.Conv2d(4, 6, 3, stride=2)
    layer.padding_mode, layer._reversed_padding_repeated_twice = "constant", [0, 1, 0, 2]
    return layer


LAYERS = [
    (SamePaddedConv2d(4, 6, 3, stride=2), IMAGES),
    (padded_at_the_end(), IMAGES),
    (nn.Conv2d(4, 6, 3), IMAGES),
    (nn.Conv2d(4, 6, (3, 1), stride=2, padding=(1, 0)), IMAGES),
    (nn.Conv2d(4, 6, 3, padding="same", dilation=2, groups=2, bias=False), IMAGES),
    (nn.Conv2d(4, 6, 3, padding="valid", padding_mode="reflect"), IMAGES),
    (nn.Conv2d(4, 6, 3, padding=2, padding_mode="circular", stride=3), IMAGES),
    (nn.Conv1d(4, 6, 3, stride=2), SIGNALS),
    (nn.Conv3d(4, 6, 2, dilation=2), VOLUMES),
    (nn.ConvTranspose2d(4, 6, 3, stride=2, padding=1, output_padding=1, dilation=2), IMAGES),
    (nn.ConvTranspose1d(4, 6, 3, stride=3, bias=False), SIGNALS),
    (nn.ConvTranspose3d(4, 6, 2), VOLUMES),
    (nn.Linear(4, 6), (5, 4)),
    (nn.Linear(4, 6, bias=False), (2, 3, 4)),
]


@pytest.mark.parametrize(("layer", "shape"), LAYERS, ids=lambda value: str(value))
def test_shapes_and_values_are_those_of_a_layer_with_zeros(layer, shape):
    x = torch.randn(shape)
    layer = copy.deepcopy(layer)
    nn.init.zeros_(layer.weight)
    expected = layer(x)
    axis = -1 if isinstance(layer, nn.Linear) else 1
    for read in (x, x.narrow(axis, 0, 0)):  # its own inputs may be gone
        got = ConstantOutput(layer)(read)
        assert torch.equal(got, expected)
        nothing = NoChannels(layer)(read)
        assert nothing.shape == expected.narrow(axis, 0, 0).shape
        nothing = NoChannels(ConstantOutput(layer))(read)
        assert nothing.shape == expected.narrow(axis, 0, 0).shape


def test_unbatched_images_and_a_wanted_output_size():
    layer = nn.ConvTranspose2d(4, 6, 3, stride=2)
    nn.init.zeros_(layer.weight)
    x = torch.randn(1, 4, 5, 5)
    wanted = layer(x, output_size=(12, 12))
    assert torch.equal(ConstantOutput(layer)(x, output_size=(12, 12)), wanted)
    plain = nn.Conv2d(4, 6, 3, stride=2)
    assert NoChannels(plain)(torch.randn(4, 9, 9)).shape == (0, 4, 4)


@pytest.mark.parametrize("layer", [nn.Conv2d(4, 6, 1), nn.Linear(6, 6)])
def test_work_in_place_on_a_constant_leaves_its_bias(layer):
    constant = ConstantOutput(layer)
    before = layer.bias.detach().clone()
    shape = (1, 4, 1, 1) if isinstance(layer, nn.Conv2d) else (1, 6)
    with torch.no_grad():
        x = constant(torch.randn(shape))
        x += 1
    assert torch.equal(constant.bias, before)


def test_outputs_are_cut_once_and_again():
    layer = nn.Conv2d(4, 6, 1)
    constant = ConstantOutput(layer)
    constant.cut((0, 3))
    constant.cut((3,))
    assert torch.equal(constant.bias, layer.bias[[1, 2, 4]])
    assert constant.out_channels == 3
    assert constant(torch.randn(2, 4, 3, 3)).shape == (2, 3, 3, 3)
    linear = ConstantOutput(nn.Linear(4, 6, bias=False))
    linear.cut((5,))
    assert (linear.in_features, linear.out_features) == (0, 5)


def test_it_is_of_the_type_and_the_mode_of_its_layer():
    layer = nn.Conv2d(4, 6, 1).double().eval()
    constant = ConstantOutput(layer)
    assert not constant.training
    assert constant(torch.randn(2, 4, 3, 3).double()).dtype == torch.float64
    bare = ConstantOutput(nn.Conv2d(4, 6, 1, bias=False))
    assert bare.state_dict() == {}
    assert bare(torch.randn(2, 4, 3, 3).double()).dtype == torch.float64


def test_copies_files_and_traces_give_the_same():
    torch.manual_seed(0)
    model = nn.Sequential(NoChannels(nn.Conv2d(3, 8, 3)), ConstantOutput(nn.Conv2d(8, 4, 3)))
    x = torch.randn(2, 3, 9, 9)
    buffer = io.BytesIO()
    torch.save(model, buffer)
    buffer.seek(0)
    batch = torch.export.Dim("batch")
    program = torch.export.export(model.eval(), (x,), dynamic_shapes=({0: batch},)).module()
    for other in (copy.deepcopy(model), torch.load(buffer, weights_only=False), program):
        assert torch.equal(other(x), model(x))
    assert torch.equal(program(torch.randn(5, 3, 9, 9))[0], model(x)[0])


def test_a_module_is_replaced_under_all_of_its_names():
    shared = nn.Linear(4, 4)
    model = nn.ModuleDict({"one": shared, "inner": nn.Sequential(shared, nn.ReLU())})
    new = NoChannels(shared)
    replace_module(model, shared, new)
    assert model["one"] is model["inner"][0] is new
    assert list(removed_layers(model)) == ["one"]
