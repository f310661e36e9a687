"""Files for any height and width are the network also at sizes that it was not traced at."""

from __future__ import annotations

import onnx
import pytest
import torch
from branching import NoBias, Plain, Projection
from torch import nn
from torch.nn import functional
from torch.utils.data import TensorDataset

import slimnet
from slimnet.export.artefacts import save_program
from slimnet.export.onnx_file import onnx_parity, translate, write_onnx
from slimnet.export.tracing import at_other_size
from slimnet.groups.branches import find_branches
from slimnet.groups.cut import slim_copy
from slimnet.groups.find import find_groups

IMAGES = torch.randn(3, 3, 16, 16, generator=torch.Generator().manual_seed(0))


def conv(inputs, outputs, stride=1):
    return nn.Conv2d(inputs, outputs, 3, stride, 1)


class UNet(nn.Module):
    def __init__(self):
        super().__init__()
        self.down, self.up, self.head = conv(3, 4, 2), conv(4, 4), conv(7, 2)

    def forward(self, x):
        deep = functional.interpolate(self.up(self.down(x)), scale_factor=2)
        return self.head(torch.cat([x, deep], 1))


class Resized(UNet):
    """Asks for the size of its input."""

    def forward(self, x):
        deep = functional.interpolate(self.up(self.down(x)), size=x.shape[2:], mode="bilinear")
        return self.head(torch.cat([x, deep], 1))


def classifier():
    return nn.Sequential(conv(3, 4, 2), nn.ReLU(), nn.MaxPool2d(2), nn.AdaptiveAvgPool2d(1),
                         nn.Flatten(), nn.Linear(4, 2))  # fmt: skip


def signals():
    return nn.Sequential(nn.Conv1d(3, 4, 3), nn.AdaptiveMaxPool1d(1), nn.Flatten())


def videos():
    return nn.Sequential(nn.Conv3d(3, 4, 3), nn.AdaptiveAvgPool3d(1), nn.Flatten())


def written(model, inputs, path):
    translated = translate(model.eval(), inputs[:2], 20, free_size=True)
    return write_onnx(translated, path, {}, inputs=inputs), translated


@pytest.mark.parametrize(
    ("build", "shape", "names"),
    [
        (classifier, (16, 16), ["height", "width"]),
        (UNet, (16, 16), ["height", "width"]),
        (Resized, (16, 24), ["height", "width"]),
        (signals, (20,), ["length"]),
        (videos, (4, 8, 8), ["depth", "height", "width"]),
    ],
)
def test_the_file_is_the_network_at_other_sizes(build, shape, names, tmp_path):
    torch.manual_seed(0)
    model, inputs = build(), torch.randn(3, 3, *shape)
    file, translated = written(model, inputs, tmp_path / "n.onnx")
    axes = onnx.load(tmp_path / "n.onnx").graph.input[0].type.tensor_type.shape.dim
    assert [axis.dim_param for axis in axes] == ["batch", "", *names]
    (size,) = file.size_parity
    assert size == ",".join(str(n + 32 * i) for i, n in enumerate(shape, 1))
    for seed in range(2):  # sizes that writing has not tried
        larger = [n + 2 * (i + seed) for i, n in enumerate(shape)]
        onnx_parity(model, tmp_path / "n.onnx", torch.randn(2, 3, *larger))
    assert save_program(translated, tmp_path / "n.pt2").relative_error < 1e-6


@pytest.mark.parametrize("build", [Plain, NoBias, Projection])
def test_what_removed_branches_leave_behind_has_no_size(build, tmp_path):
    torch.manual_seed(0)
    model = build().eval()
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.bias)
    groups, _ = find_groups(model, IMAGES[:2], layers="all")
    branches, _ = find_branches(model, groups, IMAGES[:2])
    assert branches
    for branch in branches:
        slim = slim_copy(model, branch.plan(groups))
        written(slim, IMAGES, tmp_path / "slim.onnx")
        onnx_parity(slim, tmp_path / "slim.onnx", torch.randn(2, 3, 20, 12))
        left = {node.op_type for node in onnx.load(tmp_path / "slim.onnx").graph.node}
        assert not left & {"Expand", "ConstantOfShape", "Shape"}


class Square(nn.Conv2d):
    def forward(self, x):
        x = super().forward(x)
        return (x + x.transpose(2, 3)).mean((2, 3))


class Decides(nn.Conv2d):
    def forward(self, x):
        x = super().forward(x)
        return x.mean((2, 3)) if x.shape[2] == 16 else x.amax((2, 3))


class DecidesSquare(nn.Conv2d):
    def forward(self, x):
        x = super().forward(x)
        return x.mean((2, 3)) if x.shape[2] == x.shape[3] else x.amax((2, 3))


class Two(nn.Conv2d):
    def forward(self, x, y):
        return super().forward(x + y).mean((2, 3))


@pytest.mark.parametrize(
    ("model", "inputs", "told"),
    [
        (nn.Sequential(conv(3, 1), nn.Flatten(), nn.Linear(256, 2)), IMAGES,
         r"takes inputs of \(2, 3, 16, 16\) but not of \(2, 3, 48, 80\): .*shapes"),
        (Square(3, 4, 3), IMAGES, r"but not of \(2, 3, 48, 80\)"),
        (Decides(3, 4, 3, padding=1), IMAGES, "bound Decides to 16 x any, since its forward deci"),
        (DecidesSquare(3, 4, 3, padding=1), IMAGES, "bound DecidesSquare to equal sizes"),
        (Two(3, 4, 3), (IMAGES, IMAGES), "is for networks of one input"),
        (nn.Linear(3, 4), torch.randn(3, 3), r"got \(2, 3\)"),
    ],
)  # fmt: skip
def test_a_network_that_cannot_is_told_in_one_line(model, inputs, told):
    with pytest.raises(slimnet.InputError, match=told) as caught:
        translate(model.eval(), inputs, 20, free_size=True)
    assert "\n" not in str(caught.value)
    assert "dynamic_size" in str(caught.value)
    translate(model.eval(), inputs, 20)


def test_the_other_size_is_tiled_from_the_images_and_the_model_is_not_changed():
    model = classifier().train()
    other = at_other_size(model, IMAGES)
    assert model.training
    assert torch.equal(other[:, :, 16:32, 64:80], IMAGES)


def closeness(model, batches):
    return 100 - sum(float(distance(model, batch)) for batch in batches)


def distance(model, batch):
    return (model(batch[0]) - batch[1]).square().mean()


def test_a_result_for_any_size_is_proven_verified_and_timed(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    torch.manual_seed(0)
    model, images = Resized().eval(), torch.randn(30, 3, 16, 16)
    data = TensorDataset(images, model(images).detach())
    quick = {"latency_samples": 3, "latency_batch": (1,)}
    result = slimnet.compress(
        model, data, 90, out="slim", task=slimnet.Task(distance, closeness), dynamic_size=True,
        confidence=0.5, objective="params", metrics="mean_square_weight", oracle_k=2, **quick,
    )  # fmt: skip
    assert result.plan
    assert list(result.report.artefacts.original_onnx.size_parity) == ["48,80"]
    for name, network in (("original", model), ("slim", result.model)):
        onnx_parity(network, tmp_path / "slim" / f"{name}.onnx", torch.randn(2, 3, 20, 12))
    assert slimnet.verify("slim").holds
    with pytest.raises(slimnet.InputError, match="left open by the file"):
        slimnet.bench("slim")
    timed = slimnet.bench("slim", input_shape=(3, 12, 16), **quick)
    assert timed.input_shapes == {"input": (None, 3, 12, 16)}
    applied = slimnet.apply("slim", model, out="again", dynamic_size=True)
    assert list(applied.report.artefacts.slim_onnx.size_parity) == ["48,80"]
