"""An ONNX file, called as the network that it came from: by place or name, and its whole output."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from slimnet.export.onnx_file import translate, write_onnx
from slimnet.timing.onnx_session import OnnxNetwork


class Several(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 2, 1)

    def forward(self, image, mask):
        found = self.conv(image) * mask
        return {"out": found.mean((2, 3)), "both": (found, found.sum(1))}


@pytest.fixture
def inputs():
    generator = torch.Generator().manual_seed(0)
    return torch.randn(3, 3, 4, 4, generator=generator), torch.rand(3, 1, 4, 4, generator=generator)


def same(found, expected):
    assert list(found) == list(expected)
    assert torch.allclose(found["out"], expected["out"], atol=1e-6)
    assert isinstance(found["both"], tuple)
    for one, other in zip(found["both"], expected["both"], strict=True):
        assert torch.allclose(one, other, atol=1e-6)


def test_outputs_are_put_together_as_the_networks_own(inputs, tmp_path):
    network = Several().eval()
    write_onnx(translate(network, inputs, 20), tmp_path / "n.onnx", {})
    with torch.no_grad():
        expected = network(*inputs)
    onnx_network = OnnxNetwork(tmp_path / "n.onnx", expected)
    image, mask = inputs
    same(onnx_network(image, mask), expected)
    same(onnx_network(image, mask=mask), expected)
    same(onnx_network(mask=mask, image=image), expected)


def test_an_only_input_may_have_any_name_and_memory_format(inputs, tmp_path):
    network = nn.Conv2d(3, 2, 1).eval()
    write_onnx(translate(network, inputs[0], 20), tmp_path / "n.onnx", {})
    onnx_network = OnnxNetwork(tmp_path / "n.onnx")
    with torch.no_grad():
        expected = network(inputs[0])
    for found in (
        onnx_network(inputs[0]),
        onnx_network(input=inputs[0].to(memory_format=torch.channels_last)),
    ):
        assert torch.allclose(found, expected, atol=1e-6)
