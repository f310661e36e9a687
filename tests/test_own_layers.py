"""Networks whose layers compute their weights, or pad or scale by themselves, in each command."""

from __future__ import annotations

import copy
import json

import onnxruntime
import pytest
import torch
from torch import nn
from torch.nn import functional
from torch.nn.utils import parametrizations, weight_norm
from torch.utils.data import TensorDataset

import slimnet

SHAPE = (2, 9, 9)
QUICK = {"objective": "params", "metrics": "taylor_first_order", "latency_samples": 3}


class Standardised(nn.Conv2d):
    def forward(self, x):
        weight = (self.weight - self.weight.mean()) / self.weight.std()
        return self._conv_forward(x, weight, self.bias)


class Same(nn.Conv2d):
    """Pads so that ceil(size / 2) rows and columns come out: one at the end for even sizes."""

    def forward(self, x):
        odd = [size % 2 for size in x.shape[:1:-1]]
        pads = [number for one in odd for number in (one, 1)]
        return functional.conv2d(functional.pad(x, pads), self.weight, self.bias, 2)


class Affine(nn.Module):
    def __init__(self, channels):
        super().__init__()
        self.scale = nn.Parameter(torch.rand(1, channels, 1, 1) + 0.5)
        self.shift = nn.Parameter(torch.rand(1, channels, 1, 1) - 0.5)

    def forward(self, x):
        return x * self.scale + self.shift


class Own(nn.Module):
    def __init__(self):
        super().__init__()
        self.first = Standardised(2, 12, 3, padding=1)
        self.affine = Affine(12)
        self.same = Same(12, 16, 3)
        self.normed = weight_norm(nn.Conv2d(16, 16, 3, padding=1))
        self.again = Same(16, 16, 3, bias=False)
        self.norm = nn.BatchNorm2d(16)
        self.head = parametrizations.spectral_norm(nn.Linear(16, 4))

    def forward(self, x):
        x = self.same(self.affine(self.first(x)).relu()).relu()
        x = self.norm(self.again(self.normed(x).relu())).relu()
        return self.head(x.mean((2, 3)))


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    network = Own().train()
    for _ in range(10):
        network(torch.randn(8, *SHAPE))
    return network.eval()


@pytest.fixture(scope="module")
def slim(model, tmp_path_factory):
    """The folder of a compressed network, and the result."""
    folder = tmp_path_factory.mktemp("own")
    torch.save(model.state_dict(), folder / "weights.pt")
    images = TensorDataset(torch.randn(160, *SHAPE), torch.zeros(160, dtype=torch.long))
    result = slimnet.compress(
        model, images, 90, labels="none", confidence=0.5, out=folder / "slim", **QUICK
    )
    return folder / "slim", result


def test_every_layer_is_offered(model):
    found = slimnet.inspect(model, input_shape=SHAPE)
    assert [one.layer for one in found.frozen] == ["head"]
    assert found.size.conv_weights == 9 * (2 * 12 + 12 * 16 + 2 * 16 * 16)
    assert 0 <= found.removable_conv_weights_percent <= 100


def test_compress_slims_and_says_what_became_plain(slim, model):
    folder, result = slim
    narrow = {name for name, (before, after) in result.report.channels_per_layer.items()
              if after < before}  # fmt: skip
    assert narrow & {"first", "same", "normed", "again"}
    assert any(
        "5 layers" not in note and "slimnet.load_slim" in note for note in result.report.notes
    )
    images = torch.randn(5, *SHAPE)
    session = onnxruntime.InferenceSession(folder / "slim.onnx")
    (found,) = session.run(None, {"input": images.numpy()})
    with torch.no_grad():
        assert torch.allclose(torch.from_numpy(found), result.model(images), atol=1e-5)
        original = onnxruntime.InferenceSession(folder / "original.onnx")
        (found,) = original.run(None, {"input": images.numpy()})
        assert torch.allclose(torch.from_numpy(found), model(images), atol=1e-5)


def test_a_network_of_the_own_class_becomes_the_slim_one(slim):
    folder, result = slim
    images = torch.randn(3, *SHAPE)
    with torch.no_grad():
        assert torch.equal(slimnet.load_slim(folder, Own())(images), result.model(images))
        assert torch.equal(slimnet.load_slim(folder, Own().train())(images), result.model(images))
    cut = slimnet.apply_plan(Own(), slimnet.load_plan(folder / "plan.json"))
    cut.load_state_dict(result.model.state_dict(), strict=True)


def test_verify_holds_for_the_own_network_and_for_no_other(slim, model):
    folder, _ = slim
    found = slimnet.verify(folder, model=model)
    assert found.holds, found
    other = copy.deepcopy(model)
    with torch.no_grad():
        other.affine.scale.mul_(1.1)
    failing = [
        check.name for check in slimnet.verify(folder, model=other).checks if not check.holds
    ]
    assert failing == ["plan on model"]


def test_verify_and_apply_take_weights_with_the_code(slim, tmp_path, monkeypatch):
    folder, result = slim
    arch = {"arch": f"{__file__}:Own"}
    assert slimnet.verify(folder, model=folder.parent / "weights.pt", **arch).holds
    applied = slimnet.apply(folder, folder.parent / "weights.pt", out=tmp_path / "again", **arch)
    assert applied.report.slim_size == result.report.slim_size
    assert slimnet.verify(tmp_path / "again", model=folder.parent / "weights.pt", **arch).holds
    plan = json.loads((tmp_path / "again" / "plan.json").read_text())["plan"]
    assert all(name in dict(result.model.named_modules()) for name in plan)


def test_code_that_uses_a_layer_otherwise_is_refused():
    class Peeking(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = Standardised(2, 8, 3)

        def forward(self, x):
            return self.conv(x).mean((2, 3)) + self.conv.weight.mean()

    with pytest.raises(slimnet.InputError, match="otherwise than by calling them"):
        slimnet.inspect(Peeking(), input_shape=SHAPE)


def test_a_gain_in_a_blocks_code_is_named_as_the_reason():
    class Gained(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv, self.gain = nn.Conv2d(2, 8, 3), nn.Parameter(torch.rand(8, 1, 1))
            self.head = nn.Linear(8, 3)

        def forward(self, x):
            return self.head((self.conv(x) * self.gain).mean((2, 3)))

    found = slimnet.inspect(Gained(), input_shape=SHAPE)
    (reason,) = [one.reason for one in found.frozen if one.layer == "conv"]
    assert "applies a parameter to its channels, such as a gain" in reason
