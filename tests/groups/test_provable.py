"""Only what is proven is offered: vacuous proofs, balanced cuts, training, and who is guilty."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from slimnet.groups.find import _from_graph, find_groups
from slimnet.groups.probe import Probe
from slimnet.groups.provable import EMPTIES_A_LAYER, provable_groups


def reasons_of(model, images, **options):
    groups, frozen = find_groups(model.eval(), images, **options)
    return {g.name for g in groups}, {f.layer: f.reason for f in frozen}


class Halves(nn.Module):
    """Two halves of a layer's channels go different ways, and are told apart by their place."""

    def __init__(self, fixed: bool = False) -> None:
        super().__init__()
        self.fixed = fixed
        self.first = nn.Conv2d(3, 8, 1)
        self.second = nn.Conv2d(4, 6, 1)
        self.third = nn.Conv2d(4, 6, 1)
        self.head = nn.Linear(6, 4)

    def forward(self, x):
        x = self.first(x).relu()
        one, two = (x[:, :4], x[:, 4:]) if self.fixed else x.chunk(2, 1)
        return self.head((self.second(one) * self.third(two)).mean((2, 3)))


def test_halves_at_fixed_places_are_frozen(images):
    for seed in range(6):
        torch.manual_seed(seed)
        groups, reasons = reasons_of(Halves(fixed=True), images, seed=seed)
        assert "first" in reasons
        assert "second" in groups


def test_of_halves_only_pairs_are_offered_which_leave_all_in_place(images):
    for seed in range(6):
        torch.manual_seed(seed)
        groups, _ = find_groups(Halves().eval(), images, seed=seed)
        assert [(group.name, group.units) for group in groups] == [("second", 6), ("first", 4)]


class Scaled(nn.Module):
    """What a wrong removal would change is multiplied by almost nothing."""

    def __init__(self, scale: float) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 1)
        self.inner = nn.Conv2d(8, 12, 1)
        self.outer = nn.Conv2d(12, 8, 1)
        self.scale = nn.Parameter(torch.full((1,), scale))
        self.head = nn.Linear(8, 4)
        nn.init.zeros_(self.outer.weight)

    def forward(self, x):
        x = self.stem(x)
        moved = self.inner(x).relu().roll(1, 1)
        return self.head((x + self.scale * self.outer(moved)).mean((2, 3)))


def test_next_to_nothing_hides_no_wrong_removal(images):
    torch.manual_seed(0)
    groups, reasons = reasons_of(Scaled(1e-12), images)
    assert "inner" not in groups
    assert "shuffle" in reasons["inner"]


class Dimmed(nn.Module):
    """What a wrong removal changes is small beside the output, whatever the weights are."""

    def __init__(self, factor: float, by_mean: bool = True) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(3, 6, 1), nn.Conv2d(3, 6, 1)
        self.third, self.head = nn.Conv2d(6, 8, 1), nn.Linear(8, 4)
        self.other = nn.Conv2d(6, 8, 1)
        self.factor, self.by_mean = factor, by_mean

    def forward(self, x):
        dim = self.first(x)
        if self.by_mean:  # over fewer channels once some are gone
            dim = dim * dim.mean(1, keepdim=True).sigmoid()
        x = self.third(self.second(x).relu()) + self.factor * self.other(dim).sigmoid()
        return self.head(x.mean((2, 3)))


@pytest.mark.parametrize("factor", [1.0, 1e-4, 1e-6, 1e-9, 1e-13])
def test_what_is_small_beside_the_output_hides_nothing(images, factor):
    torch.manual_seed(0)
    groups, reasons = reasons_of(Dimmed(factor), images)
    assert {"second", "third"} <= groups
    assert "first" in reasons


@pytest.mark.parametrize(("factor", "seen"), [(1e-6, True), (1e-13, False)])
def test_what_is_small_but_right_is_offered_as_long_as_it_is_seen(images, factor, seen):
    torch.manual_seed(0)
    groups, reasons = reasons_of(Dimmed(factor, by_mean=False), images)
    assert {"second", "third"} <= groups
    assert ("first" in groups) == seen
    assert seen or "hardly" in reasons["first"]


class OnlyInTraining(nn.Module):
    """What ``helper`` does with the channels of the first layer is done only in training."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 8, 1)
        self.second = nn.Conv2d(8, 6, 1)
        self.head = nn.Linear(6, 4)
        self.layer, self.transposed = nn.Linear(8, 4), nn.ConvTranspose2d(8, 3, 1)
        self.register_buffer("mean", torch.zeros(8))
        self.register_buffer("order", torch.randperm(8))
        self.tensor = torch.zeros(8, dtype=torch.float64)

    def forward(self, x):
        x = self.first(x).relu()
        out = self.head(self.second(x).relu().mean((2, 3)))
        return (out, self.helper(x)) if self.training else out


HELPERS = {
    "a layer": lambda self, x: self.layer(x.mean((2, 3))),
    "a transposed layer": lambda self, x: self.transposed(x),
    "statistics": lambda self, x: x + self.mean.lerp_(x.detach().mean((0, 2, 3)), 0.1).mean(),
    "a table": lambda self, x: x[:, self.order],
    "fixed places": lambda self, x: x[:, [0, 7]],
    "a tensor that is no buffer": lambda self, x: x.mean((2, 3)) - self.tensor,
    "a width": lambda self, x: x.unflatten(1, (8, 1)),
    "values": lambda self, x: self.layer(x.mean((2, 3))) if float(x.detach().sum()) > -1 else x,
}


@pytest.mark.parametrize("helper", HELPERS)
def test_channels_that_a_part_reads_only_in_training_stay(images, helper, monkeypatch):
    monkeypatch.setattr(OnlyInTraining, "helper", HELPERS[helper], raising=False)
    groups, reasons = reasons_of(OnlyInTraining(), images)
    assert groups == {"second"}
    assert "training" in reasons["first"]
    assert "does not run" in reasons["layer"]


def test_what_cannot_be_trained_on_at_all_is_offered(images, monkeypatch):
    def helper(self, x):
        raise ValueError

    monkeypatch.setattr(OnlyInTraining, "helper", helper, raising=False)
    assert reasons_of(OnlyInTraining(), images)[0] == {"first", "second"}


class Noisy(nn.Module):
    """Stirred, it gives no numbers; as it is, it works."""

    def __init__(self, fail: bool) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(3, 8, 1), nn.Conv2d(8, 6, 1)
        self.register_buffer("running_var", torch.zeros(()))
        self.fail = fail

    def forward(self, x):
        if self.fail and self.running_var > 0:
            raise ValueError
        x = self.second(self.first(x).relu())
        return x.log() * 0 + x if self.running_var > 0 else x


@pytest.mark.parametrize("fail", [False, True])
def test_noise_that_ruins_a_network_is_left_out(images, fail):
    assert reasons_of(Noisy(fail), images)[0] == {"first"}


class FixedView(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 8, 1)
        self.second = nn.Conv2d(8, 6, 1)
        self.head = nn.Linear(6 * 64, 4)

    def forward(self, x):
        return self.head(self.second(self.first(x).relu()).view(-1, 384))


def test_the_line_of_code_that_does_not_follow_is_named(images):
    groups, reasons = reasons_of(FixedView(), images)
    assert groups == {"first"}
    assert ".view(-1, 384)" in reasons["second"]
    assert "test_provable.py, line" in reasons["second"]


class Several(nn.Module):
    """Several inputs, several outputs by name, and a weight that no layer holds."""

    def __init__(self) -> None:
        super().__init__()
        self.one = nn.Conv2d(3, 8, 1)
        self.two = nn.Conv2d(3, 8, 1)
        self.both = nn.Conv2d(16, 6, 1)
        self.kernel = nn.Parameter(torch.randn(5, 6, 1, 1))
        self.heads = nn.ModuleList([nn.Linear(5, 4), nn.Linear(5, 2)])

    def forward(self, first, second):
        x = self.both(torch.cat([self.one(first), self.two(second)], 1)).relu()
        x = nn.functional.conv2d(x, self.kernel).mean((2, 3))
        return {"classes": self.heads[0](x), "more": [self.heads[1](x)]}


@pytest.mark.parametrize("by_name", [False, True])
def test_several_inputs_and_outputs_and_a_weight_of_the_networks_own(images, by_name):
    torch.manual_seed(0)
    inputs = {"first": images, "second": images.flip(0)} if by_name else (images, images.flip(0))
    groups, reasons = reasons_of(Several(), inputs)
    assert groups == {"one", "two"}
    assert set(reasons) == {"both", "heads.0", "heads.1", "kernel"}


def test_nothing_is_changed(residual, images):
    before = copy.deepcopy(residual.state_dict())
    probe = Probe(residual, images, 0)
    assert probe.objection({"inner": {"out": (0, 1)}, "outer": {"in": (0, 1)}}) == ""
    assert probe.objection({"inner": {"out": (0, 1)}, "outer": {"in": (0, 2)}})
    assert probe.objection_in_training({"inner": {"out": (0, 1)}, "outer": {"in": (0, 1)}}) == ""
    assert probe.objection({"inner": {"out": (0, 1)}, "outer": {"in": (0, 1)}}) == ""
    for key, value in residual.state_dict().items():
        assert torch.equal(value, before[key])


class Chunks(nn.Module):
    """Of an odd number of channels the first part gets one more: some cuts are right by chance."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, channels, 1)
        self.second = nn.Conv2d((channels + 1) // 2, 4, 1)
        self.third = nn.Conv2d(channels // 2, 4, 1)
        self.head = nn.Linear(4, 4)

    def forward(self, x):
        one, two = self.first(x).relu().chunk(2, 1)
        return self.head((self.second(one) * self.third(two)).mean((2, 3)))


@pytest.mark.parametrize("seed", range(4))
def test_a_cut_that_is_right_by_chance_proves_nothing(images, seed):
    torch.manual_seed(seed)
    _, reasons = reasons_of(Chunks(5), images, seed=seed)
    assert "first" in reasons


class OneEach(nn.Module):
    """Each reader has one channel of two."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 2, 1)
        self.second, self.third = nn.Conv2d(1, 4, 1), nn.Conv2d(1, 4, 1)
        self.head = nn.Linear(4, 4)

    def forward(self, x):
        one, two = self.first(x).relu().split([1, 1], 1)
        return self.head((self.second(one) + self.third(two)).mean((2, 3)))


def test_a_group_of_which_nothing_can_go_is_no_offer(images):
    groups, reasons = reasons_of(OneEach(), images)
    assert reasons["first"] == EMPTIES_A_LAYER
    assert groups == {"second"}


def test_one_slope_for_several_layers_does_not_couple_them(images):
    slope = nn.PReLU()
    model = nn.Sequential(
        nn.Conv2d(3, 6, 1), slope, nn.Conv2d(6, 8, 1), slope, nn.Flatten(), nn.LazyLinear(4)
    )
    model(images)
    groups, _ = find_groups(model.eval(), images)
    assert [(group.name, group.units) for group in groups] == [("0", 6), ("2", 8)]


class JoinedAndHalved(nn.Module):
    """Cuts of two layers are right together, where they are equally large, and wrong alone."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(3, channels, 1), nn.Conv2d(3, channels, 1)
        self.third, self.fourth = nn.Conv2d(channels, 4, 1), nn.Conv2d(channels, 4, 1)
        self.head = nn.Linear(4, 4)

    def forward(self, x):
        one, two = torch.cat([self.first(x), self.second(x)], 1).relu().chunk(2, 1)
        return self.head((self.third(one) + self.fourth(two)).mean((2, 3)))


@pytest.mark.parametrize("channels", [4, 16, 40])
@pytest.mark.parametrize("seed", range(3))
def test_layers_that_are_right_only_together_are_one_group_or_none(images, channels, seed):
    torch.manual_seed(seed)
    model = JoinedAndHalved(channels).eval()
    apart = _from_graph(model, images).groups
    right, failing = provable_groups(apart, Probe(model, images, seed), seed)
    assert {"first", "second"} <= {gate.layer for group, _ in failing for gate in group.gates}
    assert {group.name for group in right} == {"third"}
    groups, _ = find_groups(model, images, seed=seed)
    together = next(group for group in groups if group.name != "third")
    assert [gate.layer for gate in together.gates] == ["first", "second"]
    assert together.units == channels


class JoinedWithOne(nn.Module):
    """One channel more beside them makes some cuts of both halves right by chance."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 6, 1)
        self.second, self.third = nn.Conv2d(4, 4, 1), nn.Conv2d(3, 4, 1)
        self.head = nn.Linear(4, 4)

    def forward(self, x):
        one, two = torch.cat([self.first(x), x[:, :1]], 1).relu().chunk(2, 1)
        return self.head((self.second(one) + self.third(two)).mean((2, 3)))


@pytest.mark.parametrize("seed", range(5))
def test_a_channel_beside_a_layer_hides_no_place(images, seed):
    torch.manual_seed(seed)
    assert "first" in reasons_of(JoinedWithOne(), images, seed=seed)[1]
