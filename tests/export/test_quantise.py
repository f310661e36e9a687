"""A file in int8: the network still, for any batch, the same bytes again, and nothing local."""

from __future__ import annotations

import sys

import onnx
import pytest
import torch
from onnx import TensorProto
from torch import nn

from slimnet.errors import InputError
from slimnet.export.onnx_file import translate, write_onnx
from slimnet.export.quantise import METHODS, number_formats, quantise
from slimnet.timing import OnnxNetwork

TOLERANCE = 0.05  # of the outputs' scale


def head(channels):
    return nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(4 * channels, 4)


NETWORKS = {
    "plain": lambda: nn.Sequential(
        nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.MaxPool2d(2), *head(8)
    ),
    "grouped": lambda: nn.Sequential(
        nn.Conv2d(3, 8, 1), nn.Conv2d(8, 8, 3, groups=4), nn.SiLU(),
        nn.Conv2d(8, 8, 3, groups=8), *head(8),
    ),
    "transposed": lambda: nn.Sequential(
        nn.Conv2d(3, 8, 3), nn.ReLU(), nn.ConvTranspose2d(8, 6, 2, stride=2), nn.ReLU(), *head(6)
    ),
    "transposed in groups": lambda: nn.Sequential(
        nn.Conv2d(3, 8, 3), nn.ReLU(), nn.ConvTranspose2d(8, 6, 2, stride=2, groups=2), *head(6)
    ),
    "windows over the edge": lambda: nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.AvgPool2d(3, 2, ceil_mode=True),
        nn.Conv2d(8, 8, 1), nn.AvgPool2d(3, 2, ceil_mode=True), nn.Flatten(), nn.Linear(200, 4),
    ),
}  # fmt: skip


@pytest.fixture
def images():
    return torch.randn(16, 3, 20, 20, generator=torch.Generator().manual_seed(1))


def made_of(network, images, folder, method="minmax", opset=20):
    source, path = folder / "slim.onnx", folder / "slim.int8.onnx"
    write_onnx(translate(network.eval(), images[:2], opset), source, {})
    quantise(source, list(torch.split(images, 8)), method, path, {"a": "b"})
    return path


@pytest.mark.parametrize("name", NETWORKS)
def test_it_is_the_network_still_at_any_batch(name, images, tmp_path):
    torch.manual_seed(0)
    network = NETWORKS[name]()
    quantised = OnnxNetwork(made_of(network, images, tmp_path))
    with torch.no_grad():
        expected = network(images)
    for some in (images[:1], images[:3], images):
        off = (quantised(some) - expected[: len(some)]).abs().max() / expected.abs().max()
        assert off < TOLERANCE


@pytest.mark.parametrize("opset", [18, 23])
@pytest.mark.parametrize("method", METHODS)
def test_the_file_is_valid_small_and_ours(method, opset, images, tmp_path):
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(3, 64, 3), nn.ReLU(), nn.Conv2d(64, 64, 3), *head(64))
    path = made_of(network, images, tmp_path, method, opset)
    proto = onnx.load(path)
    onnx.checker.check_model(proto, full_check=True)
    assert {entry.key: entry.value for entry in proto.metadata_props} == {"a": "b"}
    assert [(entry.domain, entry.version) for entry in proto.opset_import] == [("", opset)]
    assert {node.op_type for node in proto.graph.node} >= {"QuantizeLinear", "DequantizeLinear"}
    weights = [x for x in proto.graph.initializer if len(x.dims) > 1]
    assert {x.data_type for x in weights} == {TensorProto.INT8}
    assert str(tmp_path).encode() not in path.read_bytes()
    assert path.stat().st_size < (tmp_path / "slim.onnx").stat().st_size / 3
    assert {file.name for file in tmp_path.iterdir()} == {"slim.onnx", "slim.int8.onnx"}


@pytest.mark.parametrize("method", METHODS)
def test_the_same_gives_the_same_bytes(method, images, tmp_path):
    torch.manual_seed(0)
    network, found = NETWORKS["plain"](), set()
    for _ in range(2):
        found.add(made_of(network, images, tmp_path, method).read_bytes())
    assert len(found) == 1


def test_nothing_to_quantise_is_said(images, tmp_path):
    with pytest.raises(InputError, match="nothing to quantise"):
        made_of(nn.Sequential(nn.ReLU(), nn.Flatten()), images, tmp_path)
    assert not (tmp_path / "slim.int8.onnx").exists()


def test_what_the_quantiser_raises_is_one_line(images, tmp_path):
    (tmp_path / "slim.onnx").write_bytes(b"no ONNX")
    with pytest.raises(InputError, match="cannot quantise it") as told:
        quantise(tmp_path / "slim.onnx", [images], "minmax", tmp_path / "int8.onnx", {})
    assert "\n" not in str(told.value)


class Pair(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3)

    def forward(self, image, shift):
        return {"out": self.conv(image + shift).mean((2, 3)), "shift": shift.amax((1, 2, 3))}


def test_several_inputs_and_outputs(images, tmp_path):
    torch.manual_seed(0)
    network, source = Pair().eval(), tmp_path / "slim.onnx"
    pair = (images, images.flip(0))
    write_onnx(translate(network, (images[:2], images[:2]), 20), source, {})
    quantise(source, [pair], "minmax", tmp_path / "int8.onnx", {})
    with torch.no_grad():
        expected = network(*pair)
    found = OnnxNetwork(tmp_path / "int8.onnx", expected)(*pair)
    assert list(found) == ["out", "shift"]
    off = (found["out"] - expected["out"]).abs().max() / expected["out"].abs().max()
    assert off < TOLERANCE


@pytest.mark.parametrize(
    ("arm", "vnni", "activations", "largest"),
    [
        (False, True, TensorProto.UINT8, 127),
        (False, False, TensorProto.UINT8, 64),
        (True, False, TensorProto.INT8, 127),
    ],
)
def test_numbers_are_those_that_the_processor_likes(
    arm, vnni, activations, largest, images, tmp_path, monkeypatch
):
    module = sys.modules["slimnet.export.quantise"]
    monkeypatch.setattr(module, "is_arm", lambda: arm)
    monkeypatch.setattr(module, "knows_vnni", lambda: vnni)
    torch.manual_seed(0)
    proto = onnx.load(made_of(NETWORKS["plain"](), images, tmp_path))
    values = {x.name: onnx.numpy_helper.to_array(x) for x in proto.graph.initializer}
    kinds = {x.name: x.data_type for x in proto.graph.initializer}
    quantisers = [node for node in proto.graph.node if node.op_type == "QuantizeLinear"]
    assert {kinds[node.input[2]] for node in quantisers} == {activations}
    weights = [x for x in values.values() if x.ndim > 1]
    assert max(int(abs(x.astype(int)).max()) for x in weights) == largest
    said = {True: "S8 act", False: "U8 act"}[arm]
    assert number_formats().startswith(said)
    assert ("7 bits" in number_formats()) == (largest == 64)
