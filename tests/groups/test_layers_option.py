"""Which layers may lose channels: convolutions, linear layers too, or where the work is."""

import pytest
import torch
from torch import nn

from slimnet.groups.find import find_groups


def test_layers_option(residual, images):
    def linear(layers):
        groups, _ = find_groups(residual, images, layers=layers)
        return "hidden" in {g.name for g in groups}

    assert linear("all")
    assert not linear("conv")
    assert not linear("auto")
    only_linear = nn.Sequential(nn.Flatten(), nn.Linear(192, 16), nn.ReLU(), nn.Linear(16, 4))
    groups, _ = find_groups(only_linear.eval(), images, layers="auto")
    assert [g.name for g in groups] == ["1"]


class Mostly(nn.Module):
    """A convolution, then a perceptron on each of its places, as on the tokens of LeViT."""

    def __init__(self, hidden):
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, padding=1)
        self.hidden = nn.Linear(8, hidden)
        self.head = nn.Linear(hidden, 4)

    def forward(self, x):
        tokens = self.stem(x).relu().flatten(2).mT
        return self.head(self.hidden(tokens).relu().mean(1))


@pytest.mark.parametrize(("hidden", "linear_too"), [(12, False), (40, True)])
def test_layers_auto_goes_by_where_the_work_is(hidden, linear_too, images):
    torch.manual_seed(0)
    groups, frozen = find_groups(Mostly(hidden).eval(), images, layers="auto")
    assert {group.name for group in groups} == {"stem", "hidden"} if linear_too else {"stem"}
    reasons = {entry.layer: entry.reason for entry in frozen}
    assert linear_too or "--layers all" in reasons["hidden"]


def test_work_is_counted_at_full_size():
    """A perceptron behind a pool is most of the work at small images, and little at large ones."""
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.AdaptiveAvgPool2d(2), nn.Flatten(),
        nn.Linear(32, 100), nn.ReLU(), nn.Linear(100, 4),
    ).eval()  # fmt: skip
    small, large = torch.randn(2, 3, 4, 4), torch.randn(2, 3, 32, 32)
    assert {g.name for g in find_groups(model, small)[0]} == {"0", "4"}
    assert {g.name for g in find_groups(model, small, full_size=large)[0]} == {"0"}


class Excited(nn.Module):
    """Squeeze and excitation by linear layers: a convolution shares its group with one."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 3, padding=1)
        self.squeeze = nn.Linear(8, 4)
        self.excite = nn.Linear(4, 8)
        self.head = nn.Linear(8, 4)

    def forward(self, x):
        x = self.conv(x).relu()
        scale = self.excite(self.squeeze(x.mean((2, 3))).relu()).sigmoid()
        return self.head((x * scale[:, :, None, None]).mean((2, 3)))


def test_a_group_with_a_convolution_in_it_counts_as_a_convolutions(images):
    _, frozen = find_groups(Excited().eval(), images, layers="conv")
    reasons = {f.layer: f.reason for f in frozen}
    assert "only convolutions" not in reasons.get("conv", "")


class Attending(nn.Module):
    """Convolutions that fail the proof (softmax over channels), then a perceptron."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 3, padding=1)
        self.mix = nn.Conv2d(8, 8, 1)
        self.hidden = nn.Linear(8, 12)
        self.head = nn.Linear(12, 4)

    def forward(self, x):
        x = self.mix(self.conv(x).softmax(1)).softmax(1).mean((2, 3))
        return self.head(self.hidden(x).relu())


def test_linear_layers_may_go_where_no_convolution_can(images):
    torch.manual_seed(0)
    groups, _ = find_groups(Attending().eval(), images, layers="auto")
    assert {g.name for g in groups} == {"hidden"}
