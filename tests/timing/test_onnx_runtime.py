"""Layer times of ONNX files, alone and side by side; and a file called as its network."""

from __future__ import annotations

import onnx
import pytest
import torch
from torch import nn

from slimnet.export.onnx_file import translate, write_onnx
from slimnet.timing.onnx_runtime import OnnxNetwork
from slimnet.timing.runtime import TimedNetwork
from slimnet.timing.runtimes import RUNTIMES

EXAMPLE = torch.randn(2, 3, 16, 16)
RUNTIME = RUNTIMES["ort-cpu"]


def network(width, classes=4):
    return nn.Sequential(
        nn.Conv2d(3, width, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(width, 16, 3), nn.ReLU(),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, classes),
    ).eval()  # fmt: skip


def export(model, example, file):
    write_onnx(translate(model, example, 20), file, {}, check_batches=())
    return TimedNetwork(file)


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pairs")
    sizes = ((64, "large.onnx"), (8, "small.onnx"))
    return tuple(export(network(width), EXAMPLE, folder / name) for width, name in sizes)


@pytest.mark.alone
def test_every_layer_stands_beside_its_like_and_nothing_is_lost(files):
    rows = RUNTIME.compare_layers(files, EXAMPLE, 1)
    by_layer = {row.layer: row for row in rows if row.layer}
    assert {"0", "3", "7"} <= by_layer.keys()
    assert [row.layer for row in rows if row.layer in ("0", "3", "7")] == ["0", "3", "7"]
    assert by_layer["3"].operator == "Conv"
    assert by_layer["3"].original_ms > by_layer["3"].slim_ms > 0
    assert {(row.runtime, row.batch_size) for row in rows} == {("onnxruntime-cpu", 2)}


@pytest.mark.alone
def test_names_that_only_one_file_has_are_summed_by_operator(files, tmp_path):
    proto = onnx.load(files[1].onnx)
    for number, node in enumerate(proto.graph.node):
        node.name = f"other{number}"
        node.input[:] = [name.replace(".weight", ".w") for name in node.input]
    for initializer in proto.graph.initializer:
        initializer.name = initializer.name.replace(".weight", ".w")
    onnx.save(proto, tmp_path / "renamed.onnx")
    pair = (files[0], TimedNetwork(tmp_path / "renamed.onnx"))
    rows = RUNTIME.compare_layers(pair, EXAMPLE, 1)
    (convolutions,) = [row for row in rows if row.operator == "Conv"]
    assert convolutions.layer == ""
    assert convolutions.original_ms > convolutions.slim_ms > 0
    keys = [(row.layer, row.operator) for row in rows]
    assert len(keys) == len(set(keys))


@pytest.mark.alone
def test_fused_operators_count_with_their_layer(tmp_path):
    model = nn.Sequential(
        nn.Conv2d(3, 16, 3), nn.BatchNorm2d(16), nn.ReLU(), nn.Conv2d(16, 32, 3), nn.ReLU(),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(32, 8), nn.ReLU(), nn.Linear(8, 4),
    ).eval()  # fmt: skip
    file = export(model, torch.randn(2, 3, 32, 32), tmp_path / "network.onnx")
    times, again = RUNTIME.layer_times([file, file], torch.zeros(4, 3, 32, 32), 1)
    assert set(again) == set(times)
    assert {"0", "3", "7", "9"} <= set(times) <= {"0", "3", "7", "9", ""}
    assert times["3"] > times["9"]


@pytest.mark.alone
def test_linear_layers_on_tokens_are_found(tmp_path):
    model = nn.Sequential(nn.Linear(8, 64, bias=False), nn.GELU(), nn.Linear(64, 8)).eval()
    file = export(model, torch.randn(2, 50, 8), tmp_path / "network.onnx")
    (times,) = RUNTIME.layer_times([file], torch.zeros(4, 50, 8), 1)
    assert {"0", "2"} <= set(times)


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
