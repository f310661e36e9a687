"""Which layers the repair may solve: those whose output is their weight times what they read."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn
from torch.nn import functional
from torch.nn.modules.linear import NonDynamicallyQuantizableLinear

from slimnet.groups.find import find_groups
from slimnet.load import SamePaddedConv2d
from slimnet.repair import columns
from slimnet.repair.columns import output_rows, unfold
from slimnet.repair.repair import gather_inverse_grams, is_repairable


class Renamed(nn.Conv2d):
    def forward(self, x):
        return super().forward(x)


class OwnPadding(nn.Conv2d):
    def forward(self, x):
        return super().forward(functional.pad(x, (1, 1, 1, 1)))


class PadsOddSizes(nn.Conv2d):
    """Only inputs of an odd size are padded."""

    def forward(self, x):
        return super().forward(functional.pad(x, (0, x.shape[3] % 2)))


class OwnWeight(nn.Conv2d):
    def forward(self, x):
        return self._conv_forward(x, self.weight / self.weight.norm(), self.bias)


class Clamped(nn.Linear):
    def forward(self, x):
        return super().forward(x).clamp(-0.1, 0.1)


class Failing(nn.Linear):
    def forward(self, x):
        raise ValueError("not today")


@pytest.mark.parametrize(
    ("layer", "repairable"),
    [
        (nn.Conv2d(4, 6, 3, 2, 1, groups=2), True),
        (SamePaddedConv2d(4, 6, 3, stride=2), True),
        (Renamed(4, 6, (3, 2), dilation=2, bias=False), True),
        (NonDynamicallyQuantizableLinear(4, 6), True),
        (OwnPadding(4, 6, 3), False),
        (PadsOddSizes(4, 6, 3), False),
        (OwnWeight(4, 6, 3), False),
        (Clamped(4, 6), False),
        (Failing(4, 6), False),
        (nn.utils.parametrizations.weight_norm(nn.Conv2d(4, 6, 3)), True),
    ],
    ids=lambda value: type(value).__name__,
)
def test_the_layers_outputs_decide_and_not_its_class(layer, repairable):
    before = copy.deepcopy(layer.state_dict())
    assert is_repairable(layer) is repairable
    assert all(torch.equal(value, before[name]) for name, value in layer.state_dict().items())


def test_torchs_own_layers_are_not_run(monkeypatch):
    monkeypatch.setattr(columns, "_multiplies", lambda *_: pytest.fail("the layer was run"))
    assert is_repairable(nn.Conv2d(4, 6, 3))
    assert is_repairable(nn.Linear(4, 6))


@pytest.mark.parametrize("size", [7, 8, 9])
def test_padding_by_the_size_of_the_input_is_unfolded(size):
    layer = SamePaddedConv2d(4, 6, (3, 5), stride=(2, 3), groups=2, dilation=(1, 2))
    inputs = torch.randn(2, 4, size, size + 1)
    weight = layer.weight.reshape(2, 3, -1)
    found = (weight @ unfold(layer, inputs)).flatten(0, 1) + layer.bias[:, None]
    assert torch.allclose(found, output_rows(layer, layer(inputs)), atol=1e-5)


def test_a_consumer_that_pads_by_itself_is_left_out():
    model = nn.Sequential(nn.Conv2d(3, 4, 1), OwnPadding(4, 4, 3), nn.Conv2d(4, 4, 1), nn.Flatten())
    model.append(nn.Linear(4 * 64, 2)).eval()
    images = torch.randn(4, 3, 8, 8)
    groups, _ = find_groups(model, images, layers="all")
    assert {member.module for group in groups for member in group.members} >= {"0", "1", "2"}
    found = gather_inverse_grams(model, groups, [(images, torch.zeros(4, dtype=torch.int64))])
    assert set(found) == {"2", "4"}
