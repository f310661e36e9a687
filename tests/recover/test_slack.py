"""Slack: outputs of a layer that make no difference to what comes behind it."""

from __future__ import annotations

from functools import partial

import pytest
import torch
from torch import nn
from torch.nn import functional

from slimnet.recover.slack import Slack, find_slack


def between(*behind, channels=6):
    """A layer ("0") with these modules between it and the last one."""
    torch.manual_seed(0)
    layer, last = nn.Conv2d(3, channels, 3, padding=1), nn.Conv2d(channels, 4, 3)
    return nn.Sequential(layer, *behind, last, nn.AdaptiveAvgPool2d(1), nn.Flatten()).eval()


def found(model, names=("0",), images=None):
    images = torch.randn(5, 3, 8, 8) if images is None else images
    return find_slack(model, names, [lambda: (model(images),)])


def test_below_zero_a_relu_has_slack_and_above_it_none():
    slack = found(between(nn.ReLU()))["0"]
    assert slack.low.shape == slack.high.shape == (6, 1)
    assert bool((slack.low < 0).all() & (slack.low > -0.05).all())
    assert bool((slack.high == torch.inf).all())


def test_a_norm_moves_and_turns_it():
    """Where the scale is negative, the ReLU cuts off what is high."""
    norm = nn.BatchNorm2d(6)
    with torch.no_grad():
        norm.weight.copy_(torch.tensor([1.0, 2, 0.5, -1, -2, -0.5]))
        norm.bias.uniform_(-0.2, 0.2)
        norm.running_mean.uniform_(-0.2, 0.2)
    slack = found(between(norm, nn.ReLU()))["0"]
    zero = norm.running_mean - norm.bias / norm.weight * (norm.running_var + norm.eps).sqrt()
    edge = torch.cat([slack.low[:3], slack.high[3:]]).flatten()
    assert torch.allclose(edge, zero, atol=0.05)
    assert bool((slack.low[3:] == -torch.inf).all() & (slack.high[:3] == torch.inf).all())


def test_what_saturates_has_it_at_both_ends():
    slack = found(between(nn.Hardtanh(-0.3, 0.4)))["0"]
    assert torch.allclose(slack.low, torch.tensor(-0.3), atol=0.05)
    assert torch.allclose(slack.high, torch.tensor(0.4), atol=0.05)


@pytest.mark.parametrize("behind", [nn.Identity(), nn.GELU(), nn.Softmax(1)])
def test_what_is_felt_everywhere_has_none(behind):
    assert not found(between(behind))


def test_what_never_is_a_largest_one_has_slack_before_a_max_pool():
    model, images = between(nn.MaxPool2d(2)), torch.randn(5, 3, 8, 8)
    slack = found(model, images=images)["0"]
    with torch.no_grad():
        smallest = model[:2](images)[:, :, :-1, :-1].transpose(0, 1).flatten(1).amin(1)
    assert bool((slack.low.flatten() < smallest).all() & (slack.high == torch.inf).all())


def test_a_channel_that_nothing_feels_has_none():
    model = between(nn.ReLU())
    with torch.no_grad():
        model[0].bias[2] = -100
    slack = found(model)["0"]
    assert slack.low[2] == -torch.inf
    assert slack.high[2] == torch.inf
    assert slack.low[1] > -1


def test_outputs_that_always_sum_to_one_are_felt():
    model = nn.Sequential(nn.Linear(5, 4), nn.ReLU(), nn.Linear(4, 3), nn.Softmax(1))
    slack = found(model, ("0", "2"), torch.randn(64, 5))
    assert slack.keys() == {"0"}


class FirstToken(nn.Module):
    def forward(self, x):
        return x[:, 0]


@pytest.mark.parametrize(
    ("model", "images"),
    [
        (nn.Sequential(nn.Linear(5, 8), FirstToken(), nn.Linear(8, 3)), torch.randn(6, 9, 5)),
        (nn.Sequential(nn.Conv2d(3, 8, 3), nn.Conv2d(8, 2, 1, 2)), torch.randn(2, 3, 9, 9)),
    ],
)
def test_what_is_not_read_is_no_slack(model, images):
    assert not found(model, images=images)


def test_an_edge_can_be_only_above():
    class Below(nn.Module):
        def forward(self, x):
            return x.clamp(max=0.3)

    slack = found(between(Below()))["0"]
    assert bool((slack.low == -torch.inf).all())
    assert torch.allclose(slack.high, torch.tensor(0.3), atol=0.05)


def test_of_several_outputs_each_may_feel_it():
    """One has no derivative, and one layer reaches none."""
    model, images = between(nn.ReLU()), torch.randn(5, 3, 8, 8)
    unread = nn.Conv2d(3, 2, 3)
    model.append(nn.Identity()).append(unread)

    def run():
        maps = model[0](images)
        unread(images)
        return maps.argmax(1), model[1](maps).mean(), maps.clamp(max=0.2)[:, :1].mean()

    slack = find_slack(model, ["0", str(len(model) - 1)], [run])
    assert slack.keys() == {"0"}
    # the first channel's low outputs are felt by the last output
    assert slack["0"].low[0] == -torch.inf
    assert bool((slack["0"].low[1:] > -0.05).all())


def test_what_is_felt_on_any_images_has_no_slack():
    model = between(nn.MaxPool2d(8))
    first, second = torch.randn(2, 5, 3, 8, 8).unbind()
    second *= 0.3
    parts = [lambda: (model[:2](first),), lambda: (model[:2](second),)]
    one, both = (find_slack(model, ["0"], some)["0"] for some in (parts[:1], parts))
    with torch.no_grad():
        lowest = model[:2](second).transpose(0, 1).flatten(1).amin(1, keepdim=True)
    assert bool((one.low > lowest).any() & (both.low < lowest).all())
    whole = find_slack(model, ["0"], [lambda: (model[:2](torch.cat([first, second])),)])["0"]
    assert bool((both.low <= whole.low).all())


class Twice(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(5, 5)

    def forward(self, x):
        return functional.relu(self.layer(functional.relu(self.layer(x))))


def test_a_layer_that_runs_twice_has_none():
    assert not found(Twice(), ("layer",), torch.randn(64, 5))


def test_a_relu_in_place_makes_no_difference():
    images = torch.randn(5, 3, 8, 8)
    one, other = (
        found(between(nn.ReLU(inplace=inplace)), images=images)["0"] for inplace in (False, True)
    )
    assert torch.equal(one.low, other.low)


@pytest.mark.parametrize("broken", [torch.inference_mode(), torch.no_grad()])
def test_without_derivatives_there_is_none(broken):
    model, images = between(nn.ReLU()), torch.randn(5, 3, 8, 8)

    def run():
        with broken:
            return (model(images),)

    assert not find_slack(model, ["0"], [run])
    assert not any(module._forward_hooks for module in model.modules())


def test_the_model_is_left_alone():
    """Frozen, as the search's models are, it has the same slack."""
    model = between(nn.ReLU())
    images = torch.randn(5, 3, 8, 8)
    trainable = found(model, images=images)["0"]
    assert all(parameter.grad is None for parameter in model.parameters())
    model.requires_grad_(False)
    assert torch.equal(found(model, images=images)["0"].low, trainable.low)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    found(model)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert not any(module._forward_hooks for module in model.modules())


@torch.no_grad()
@pytest.mark.parametrize("behind", [nn.ReLU(), nn.Hardtanh(-0.3, 0.4), nn.MaxPool2d(2)])
def test_relaxed_outputs_give_the_same(behind):
    """Whatever is reached: what is aimed at instead, the network answers as before."""
    model, images = between(behind), torch.randn(5, 3, 8, 8)
    slack, wanted = found(model, images=images)["0"], model[0](images)
    rows = wanted.transpose(0, 1).flatten(1)
    aims = slack.relaxed(rows, rows + torch.randn_like(rows))
    maps = aims.reshape(6, 5, 8, 8).transpose(0, 1)
    assert not torch.equal(maps, wanted)
    assert torch.allclose(model[1:](maps), model(images), atol=1e-6)


def test_aims_are_as_near_as_they_can_be_to_what_is_reached():
    slack = Slack(torch.tensor([[0.0], [-torch.inf]]), torch.tensor([[torch.inf], [2.0]]))
    wanted = torch.tensor([[-1.0, -1.0, 1.0], [-1.0, 3.0, 3.0]])
    reached = torch.tensor([[-3.0, 4.0, -5.0], [9.0, 1.0, 9.0]])
    expected = torch.tensor([[-3.0, 0.0, 1.0], [-1.0, 2.0, 9.0]])
    assert torch.equal(slack.relaxed(wanted, reached), expected)
    two = partial(torch.reshape, shape=(2, 1, 3))
    assert torch.equal(slack.relaxed(two(wanted), two(reached)), two(expected))


def test_of_some_channels_with_an_offset():
    slack = Slack(torch.tensor([[0.0], [1.0]]), torch.tensor([[torch.inf], [2.0]]))
    some = slack.of(torch.tensor([False, True]), torch.tensor([[0.5]]))
    assert some.low.tolist() == [[1.5]]
    assert some.high.tolist() == [[2.5]]
