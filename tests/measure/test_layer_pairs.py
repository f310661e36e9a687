"""Layer times of two files side by side."""

from __future__ import annotations

import onnx
import pytest
import torch
from torch import nn

from slimnet.export import export_onnx
from slimnet.measure import profile_pair

EXAMPLE = torch.randn(2, 3, 16, 16)


def network(width, classes=4):
    return nn.Sequential(
        nn.Conv2d(3, width, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(width, 16, 3), nn.ReLU(),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, classes),
    ).eval()  # fmt: skip


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pairs")
    for width, name in ((64, "large.onnx"), (8, "small.onnx")):
        export_onnx(network(width), EXAMPLE, folder / name, 20, {}, check_batches=())
    return folder / "large.onnx", folder / "small.onnx"


@pytest.mark.alone
def test_every_layer_stands_beside_its_like_and_nothing_is_lost(files):
    rows = profile_pair(*files, EXAMPLE, 8, 1, "onnxruntime-cpu")
    by_layer = {row.layer: row for row in rows if row.layer}
    assert {"0", "3", "7"} <= by_layer.keys()
    assert [row.layer for row in rows if row.layer in ("0", "3", "7")] == ["0", "3", "7"]
    assert by_layer["3"].operator == "Conv"
    assert by_layer["3"].original_ms > by_layer["3"].slim_ms > 0
    assert {(row.runtime, row.batch_size) for row in rows} == {("onnxruntime-cpu", 8)}


@pytest.mark.alone
def test_names_that_only_one_file_has_are_summed_by_operator(files, tmp_path):
    proto = onnx.load(files[1])
    for number, node in enumerate(proto.graph.node):
        node.name = f"other{number}"
        node.input[:] = [name.replace(".weight", ".w") for name in node.input]
    for initializer in proto.graph.initializer:
        initializer.name = initializer.name.replace(".weight", ".w")
    onnx.save(proto, tmp_path / "renamed.onnx")
    rows = profile_pair(files[0], tmp_path / "renamed.onnx", EXAMPLE, 2, 1, "onnxruntime-cpu")
    (convolutions,) = [row for row in rows if row.operator == "Conv"]
    assert convolutions.layer == ""
    assert convolutions.original_ms > convolutions.slim_ms > 0
    keys = [(row.layer, row.operator) for row in rows]
    assert len(keys) == len(set(keys))
