"""A slim network's file made of the original's: the same as its own export, or none."""

from __future__ import annotations

import onnx
import pytest
import torch
from torch import nn

from slimnet.export.layer_timer import write_reweighted
from slimnet.export.onnx_file import translate, write_onnx
from slimnet.groups.cut import slim_copy
from slimnet.groups.find import find_groups
from slimnet.groups.group import plan_for

GENERATOR = torch.Generator().manual_seed(0)
IMAGES, TOKENS = (torch.randn(size, generator=GENERATOR) for size in ((3, 3, 8, 8), (3, 5, 8)))


def chain():
    """Norms that the exporter folds, behind a bias and behind none, and one that it does not."""
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, bias=False), nn.BatchNorm2d(8), nn.ReLU(),
        nn.Conv2d(8, 8, 1, groups=8), nn.ReLU(), nn.BatchNorm2d(8),
        nn.ConvTranspose2d(8, 6, 2), nn.BatchNorm2d(6), nn.ReLU(), nn.MaxPool2d(3), nn.Flatten(),
        nn.Linear(24, 10), nn.BatchNorm1d(10), nn.ReLU(), nn.Linear(10, 4),
    )  # fmt: skip


def on_tokens():
    return nn.Sequential(nn.Linear(8, 8), nn.GELU(), nn.Linear(8, 6), nn.GELU(), nn.Linear(6, 4))


class Halves(nn.Module):
    """The network's own code makes half of the width a constant of the file."""

    def __init__(self, width):
        super().__init__()
        self.layer = nn.Conv2d(3, width, 3)

    def forward(self, x):
        x = self.layer(x)
        return x.unflatten(1, (2, x.shape[1] // 2)).amax((1, 3, 4))


def written(model, inputs, folder):
    file = folder / "exported.onnx"
    write_onnx(translate(model, inputs, 20), file, {}, check_batches=())
    return onnx.load(str(file))


def randomised(model):
    """Zeros and ones are left out of a file, or are one value for several."""
    with torch.no_grad():
        for value in model.state_dict().values():
            if value.is_floating_point():
                value.copy_(torch.rand(value.shape, generator=GENERATOR) + 0.1)
    return model.eval()


def weights(proto):
    values = ((value.name, onnx.numpy_helper.to_array(value)) for value in proto.graph.initializer)
    return {name: torch.tensor(value) for name, value in values if name.count(".")}


@pytest.mark.parametrize("name", ["residual", "chain", "on_tokens"])
def test_it_is_the_file_that_an_export_gives(name, residual, tmp_path):
    model = residual if name == "residual" else randomised(globals()[name]())
    inputs = TOKENS if name == "on_tokens" else IMAGES
    groups, _ = find_groups(model, inputs, layers="all")
    slim = slim_copy(model, plan_for(groups, [torch.arange(group.units // 2) for group in groups]))
    before, path = {key: value.clone() for key, value in slim.state_dict().items()}, tmp_path / "it"
    assert write_reweighted(written(model, inputs, tmp_path), slim, inputs, path)
    found, expected = onnx.load(str(path)), written(slim, inputs, tmp_path)
    assert [node.name for node in found.graph.node] == [node.name for node in expected.graph.node]
    assert weights(found).keys() == weights(expected).keys()
    for key, value in weights(expected).items():
        torch.testing.assert_close(weights(found)[key], value)
    assert all(torch.equal(value, before[key]) for key, value in slim.state_dict().items())


def test_a_width_that_stands_in_the_file_is_noticed(tmp_path):
    proto = written(randomised(Halves(8)), IMAGES, tmp_path)
    assert write_reweighted(proto, randomised(Halves(8)), IMAGES, tmp_path / "same")
    assert not write_reweighted(proto, randomised(Halves(6)), IMAGES, tmp_path / "narrower")


def test_another_function_of_the_same_weights_is_noticed(tmp_path):
    model = randomised(
        nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(144, 2))
    )
    proto = written(model, IMAGES, tmp_path)
    model[1] = nn.Tanh()
    assert not write_reweighted(proto, model, IMAGES, tmp_path / "it")
