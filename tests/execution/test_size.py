import copy

import pytest
import torch
from torch import nn
from torch.nn.utils.parametrizations import weight_norm

from slimnet.execution.size import count_conv_weights, linear_share, measure_size


class Tied(nn.Module):
    def __init__(self):
        super().__init__()
        self.first = nn.Conv2d(4, 4, 3, padding=1)
        self.second = nn.Conv2d(4, 4, 3, padding=1)
        self.second.weight = self.first.weight
        self.again = self.first

    def forward(self, images):
        return self.again(self.second(self.first(images)))


@pytest.mark.parametrize("images", [1, 5])
def test_counts_by_hand(images):
    model = nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1),
        nn.BatchNorm2d(8),
        nn.ReLU(),
        nn.Conv2d(8, 8, 3, padding=1, groups=4, stride=2),
        nn.ConvTranspose2d(8, 4, 2, stride=2),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(4, 10),
    )
    size = measure_size(model, torch.randn(images, 3, 8, 8))
    convs = (3 * 8 * 9, 2 * 8 * 9, 8 * 4 * 4)
    assert size.conv_weights == sum(convs)
    assert size.parameters == sum(convs) + 8 + 8 + 4 + 16 + 40 + 10
    assert size.macs == convs[0] * 64 + convs[1] * 16 + convs[2] * 16 + 40


def test_shared_weight_counts_once_but_computes_each_time():
    size = measure_size(Tied(), torch.randn(2, 4, 4, 4))
    assert size.conv_weights == 4 * 4 * 9
    assert size.parameters == 4 * 4 * 9 + 4 + 4
    assert size.macs == 3 * 4 * 4 * 9 * 16


def test_computed_weights_count_once_each():
    layers = [weight_norm(nn.Conv2d(4, 4, 3, padding=1)) for _ in range(6)]
    assert count_conv_weights(nn.Sequential(*layers)) == 6 * 4 * 4 * 9


@pytest.mark.parametrize("fastpath", [True, False])
def test_attention_is_counted_and_the_fast_path_restored(fastpath):
    before = torch.backends.mha.get_fastpath_enabled()
    layer = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True).eval()
    torch.backends.mha.set_fastpath_enabled(fastpath)
    try:
        size = measure_size(layer, torch.randn(1, 5, 8))
        assert torch.backends.mha.get_fastpath_enabled() is fastpath
    finally:
        torch.backends.mha.set_fastpath_enabled(before)
    assert size.macs >= 5 * (4 * 8 * 8 + 2 * 8 * 16)


class Both(nn.Module):
    """A layer that runs twice under two names, one that never runs, and a product of matrices."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Sequential(nn.Conv2d(3, 4, 1))
        self.linear = nn.Linear(4, 5)
        self.again = self.linear
        self.unused = nn.Linear(4, 1000)

    def forward(self, images):
        tokens = self.conv(images).flatten(2).mT
        return (self.linear(tokens) + self.again(tokens)) @ tokens.new_ones(5, 3)


@pytest.mark.parametrize("images", [1, 3])
def test_share_of_linear_layers_by_hand(images):
    conv, linear = 36 * 3 * 4, 2 * 36 * 4 * 5
    share = linear_share(Both().eval(), torch.randn(images, 3, 6, 6))
    assert share == linear / (linear + conv)
    assert linear_share(nn.ReLU(), torch.randn(1, 3)) == 0.0
    assert linear_share(nn.Linear(3, 2), torch.randn(1, 3)) == 1.0


def test_leaves_the_model_as_it_was():
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)).train()
    before = copy.deepcopy(model.state_dict())
    measure_size(model, torch.randn(2, 3, 8, 8))
    assert model.training
    assert model[1].training
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
    assert not any(module._forward_hooks for module in model.modules())
