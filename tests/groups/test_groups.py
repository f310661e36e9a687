"""Groups: masked = slim, original numbering, coupled layers, and what is frozen."""

from __future__ import annotations

import copy
from itertools import pairwise

import pytest
import torch
import torchvision
from torch import nn
from torch.nn import functional

from slimnet.errors import InputError, ProofError
from slimnet.groups.cut import apply_plan, mask, masked, slim_copy
from slimnet.groups.find import find_groups
from slimnet.groups.group import merge_plans, plan_for, shrink_groups
from slimnet.groups.prove import masked_slim_error, prove_slim


def chosen_units(groups, share, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return [
        torch.randperm(g.units, generator=generator)[: int(g.units * share)].sort().values
        for g in groups
    ]


def test_residual_sum_couples_its_layers_and_grouped_channels_go_together(residual, images):
    groups, frozen = find_groups(residual, images, layers="all")
    by_name = {g.name: g for g in groups}
    assert {g.layer for g in by_name["stem"].gates} == {"stem", "outer"}
    assert by_name["stem"].units == 8
    # wide -> depthwise -> grouped (2 groups of 6): channel i goes with channel i + 6
    assert by_name["wide"].units == 6
    assert {g.layer for g in by_name["wide"].gates} == {"wide", "depthwise"}
    assert by_name["grouped"].units == 4
    assert [f.layer for f in frozen] == ["head"]
    assert "output" in frozen[0].reason


def test_gate_sits_after_the_norm(residual, images):
    groups, _ = find_groups(residual, images)
    gates = {g.layer: g.module for group in groups for g in group.gates}
    assert gates["stem"] == "norm"
    assert gates["inner"] == "inner"


@pytest.mark.parametrize("share", [0.2, 0.5])
def test_masked_is_slim_for_every_group_together(residual, images, share):
    groups, _ = find_groups(residual, images, layers="all")
    plan = plan_for(groups, chosen_units(groups, share))
    assert masked_slim_error(residual, plan, images) < 1e-12
    slim = slim_copy(residual, plan)
    assert sum(p.numel() for p in slim.parameters()) < sum(p.numel() for p in residual.parameters())


def test_a_wrong_plan_is_caught(residual, images):
    groups, _ = find_groups(residual, images, layers="all")
    plan = {k: dict(v) for k, v in plan_for(groups, chosen_units(groups, 0.5)).items()}
    plan["inner"]["in"] = tuple((i + 1) % 8 for i in plan["inner"]["in"])
    with pytest.raises(ProofError, match="differs"):
        prove_slim(residual, slim_copy(residual, plan), plan, images)


def test_two_steps_equal_their_union_in_original_numbering(residual, images):
    groups, _ = find_groups(residual, images, layers="all")
    first = chosen_units(groups, 0.3, seed=1)
    after_one = slim_copy(residual, plan_for(groups, first))
    smaller = shrink_groups(groups, first)
    second = chosen_units(smaller, 0.3, seed=2)
    after_two = slim_copy(after_one, plan_for(smaller, second))
    union = merge_plans(
        plan_for(groups, first, original=True), plan_for(smaller, second, original=True)
    )
    assert union != plan_for(groups, first, original=True)
    at_once = slim_copy(residual, union)
    for one, other in zip(after_two.state_dict().values(), at_once.state_dict().values(),
                          strict=True):  # fmt: skip
        assert torch.equal(one, other)


def test_masked_block_puts_every_weight_back(residual, images):
    groups, _ = find_groups(residual, images, layers="all")
    before = copy.deepcopy(residual.state_dict())
    plan = plan_for(groups, chosen_units(groups, 0.5))
    with torch.no_grad(), masked(residual, plan):
        inside = residual(images)
    reference = copy.deepcopy(residual)
    mask(reference, plan)
    assert torch.equal(inside, reference(images))
    assert not torch.equal(inside, residual(images))
    for key, value in residual.state_dict().items():
        assert torch.equal(value, before[key])


def test_finding_and_slimming_change_nothing(residual, images):
    residual.stem.weight.requires_grad_(False)
    before = copy.deepcopy(residual.state_dict())
    groups, _ = find_groups(residual, images)
    assert "stem" in {g.name for g in groups}, "frozen parameters must not hide a group"
    slim_copy(residual, plan_for(groups, chosen_units(groups, 0.5)))
    assert not residual.stem.weight.requires_grad
    assert not residual.training
    for key, value in residual.state_dict().items():
        assert torch.equal(value, before[key])


def test_plan_replays_on_a_fresh_network_with_a_strict_load(residual, images):
    groups, _ = find_groups(residual, images, layers="all")
    plan = plan_for(groups, chosen_units(groups, 0.5))
    slim = slim_copy(residual, plan)
    fresh = apply_plan(type(residual)(), plan)
    fresh.load_state_dict(slim.state_dict(), strict=True)
    assert torch.equal(fresh.eval()(images), slim(images))


def test_a_plan_that_does_not_fit_is_refused_and_nothing_changes(residual):
    before = copy.deepcopy(residual.state_dict())
    with pytest.raises(InputError, match="removes index 99 of 'stem'"):
        apply_plan(residual, {"inner": {"out": (0,)}, "stem": {"out": (99,)}})
    with pytest.raises(InputError, match="'nothing'"):
        apply_plan(residual, {"nothing": {"out": (0,)}})
    assert all(torch.equal(v, before[k]) for k, v in residual.state_dict().items())


class Rolled(nn.Module):
    """Channels move on by a fixed number, which torch-pruning follows wrongly without a word."""

    def __init__(self):
        super().__init__()
        self.first = nn.Conv2d(3, 8, 3, padding=1)
        self.rolled = nn.Conv2d(8, 8, 1)
        self.after = nn.Conv2d(8, 6, 1)
        self.head = nn.Linear(6, 4)

    def forward(self, x):
        x = self.rolled(self.first(x).relu()).relu().roll(3, 1)
        return self.head(self.after(x).mean((2, 3)))


class Normed(nn.Module):
    def __init__(self, norm):
        super().__init__()
        self.first = nn.Conv2d(3, 8, 1)
        self.norm = norm
        self.second = nn.Conv2d(8, 6, 1)
        self.head = nn.Linear(6, 4)

    def forward(self, x):
        return self.head(self.second(self.norm(self.first(x))).mean((2, 3)))


def test_what_cannot_be_proven_is_frozen_with_a_reason_and_the_rest_stays(images):
    groups, frozen = find_groups(Rolled().eval(), images)
    assert {g.name for g in groups} == {"first", "after"}
    assert "proof" in {f.layer: f.reason for f in frozen}["rolled"]


def test_group_norm_over_all_channels_is_frozen(images):
    groups, frozen = find_groups(Normed(nn.GroupNorm(1, 8)).eval(), images)
    assert {g.name for g in groups} == {"second"}
    assert "GroupNorm of one group" in {f.layer: f.reason for f in frozen}["first"]


def test_a_layer_that_the_pass_never_runs_is_listed(images):
    model = Normed(nn.Identity())
    model.unused = nn.Conv2d(3, 3, 1)
    _, frozen = find_groups(model.eval(), images)
    assert "does not run" in {f.layer: f.reason for f in frozen}["unused"]


@pytest.mark.parametrize(
    "name", ["resnet18", "mobilenet_v2", "squeezenet1_1", "regnet_y_400mf", "densenet121"]
)
def test_torchvision_families_are_right_in_float64(name):
    torch.manual_seed(0)
    model = torchvision.models.get_model(name, num_classes=7).eval()
    example = torch.randn(2, 3, 64, 64)
    groups, frozen = find_groups(model, example)
    assert len(groups) >= 10
    assert [f.reason for f in frozen] == ["it makes the network's output"]
    plan = plan_for(groups, chosen_units(groups, 0.3))
    assert prove_slim(model, slim_copy(model, plan), plan, example).relative_error < 1e-10


class TwoBranches(nn.Module):
    """Two bias-free convolutions before one norm that both use."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, padding=1)
        self.a = nn.Conv2d(8, 6, 1, bias=False)
        self.b = nn.Conv2d(8, 6, 1, bias=False)
        self.norm = nn.BatchNorm2d(6)
        self.head = nn.Linear(6, 4)

    def forward(self, x):
        x = self.stem(x).relu()
        return self.head((self.norm(self.a(x)) + self.norm(self.b(x))).mean((2, 3)))


def test_a_norm_behind_two_layers_belongs_to_neither(images):
    groups, _ = find_groups(TwoBranches().eval(), images)
    norms = {m.module: m.norm for g in groups for m in g.members if m.direction == "in"}
    assert norms["a"] is None
    assert norms["b"] is None


class Casting(nn.Module):
    def __init__(self):
        super().__init__()
        self.head = nn.Conv2d(3, 4, 1)

    def forward(self, x):
        return self.head(x.float()).mean((2, 3))


class Overwriting(nn.Module):
    def __init__(self):
        super().__init__()
        self.head = nn.Conv2d(3, 4, 1)

    def forward(self, x):
        return self.head(x.sub_(0.5)).mean((2, 3))


def test_a_network_that_changes_its_input_is_refused(images):
    before = images.clone()
    with pytest.raises(InputError, match="changes its own input in place"):
        find_groups(Overwriting().eval(), images)
    assert torch.equal(images, before)


def test_a_network_that_cannot_be_proven_is_refused_with_the_reason(images):
    with pytest.raises(InputError, match="does not run in float64"):
        find_groups(Casting().eval(), images)


class Noisy(nn.Module):
    def __init__(self, *layers: nn.Module) -> None:
        super().__init__()
        self.layers = nn.Sequential(*layers)

    def forward(self, x):
        return self.layers(x) + torch.rand(())


@pytest.mark.parametrize("layers", [(3, 5, 4), (3, 4)], ids=["prunable", "nothing prunable"])
def test_a_network_that_is_another_each_time_is_refused(images, layers):
    network = Noisy(*(nn.Conv2d(a, b, 1) for a, b in pairwise(layers)))
    with pytest.raises(InputError, match="gives another output each time"):
        find_groups(network.eval(), images)


def test_proof_of_buffers_of_any_type_and_any_layout(residual, images):
    residual.register_buffer("table", torch.arange(300) % 2 == 0)
    residual.register_buffer("codes", (torch.arange(300) % 256).to(torch.uint8))
    residual = residual.to(memory_format=torch.channels_last)
    groups, _ = find_groups(residual, images, layers="all")
    plan = plan_for(groups, chosen_units(groups, 0.5))
    assert prove_slim(residual, slim_copy(residual, plan), plan, images).relative_error < 1e-10


def test_a_grouped_convolution_with_one_output_a_group_still_loses_inputs():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 8, 1), nn.Conv2d(8, 4, 3, groups=2)).eval()
    after_one = slim_copy(model, {"1": {"out": (0, 2)}})
    after_two = slim_copy(after_one, {"0": {"out": (1, 5)}, "1": {"in": (1, 5)}})
    assert (after_two[1].in_channels, after_two[1].out_channels, after_two[1].groups) == (6, 2, 2)
    assert after_two[1].weight.shape == (2, 3, 3, 3)


def test_slimming_lets_the_same_weights_learn_as_before(residual, images):
    residual.stem.weight.requires_grad_(False)
    groups, _ = find_groups(residual, images)
    slim = slim_copy(residual, plan_for(groups, chosen_units(groups, 0.5)))
    frozen = {name for name, parameter in slim.named_parameters() if not parameter.requires_grad}
    assert frozen == {"stem.weight"}


def test_a_layer_that_the_graph_does_not_see_gets_a_second_chance():
    """As behind linear layers on tokens, whose views torch 2.14 lets code rewrite in place."""

    class InPlace(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.second = nn.Linear(3, 8), nn.Linear(8, 6)
            self.head, self.unused = nn.Linear(6, 4), nn.Linear(3, 3)

        def forward(self, tokens):
            hidden = functional.relu(self.first(tokens), inplace=True)
            return self.head(functional.relu(self.second(hidden), inplace=True))

    groups, frozen = find_groups(InPlace().eval(), torch.randn(2, 5, 3), layers="all")
    assert sorted(group.name for group in groups) == ["first", "second"]
    assert {entry.layer for entry in frozen} == {"head", "unused"}
    assert "does not run as a layer" in next(e.reason for e in frozen if e.layer == "unused")


def test_an_activation_in_place_hides_no_linear_layer_on_tokens():
    """torch 2.14 gives a view there, and working in place on one rewrites the autograd graph."""
    model = nn.Sequential(nn.Linear(3, 8), nn.ReLU(inplace=True), nn.Linear(8, 4)).eval()
    groups, _ = find_groups(model, torch.randn(2, 5, 3), layers="all")
    assert [group.name for group in groups] == ["0"]
    assert model[1].inplace
