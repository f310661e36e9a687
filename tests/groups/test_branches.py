"""Branches: which layers go together, what is left of them, and that masked = slim without them."""

from __future__ import annotations

import copy

import pytest
import torch
from branching import ALL, NEEDED, Bottleneck, Concat, Dense, Inverted, Plain
from random_removal import compare, random_units, require_intact, training_error
from torch import nn

from slimnet.errors import ProofError
from slimnet.execution.removed import ConstantOutput, NoChannels
from slimnet.execution.size import measure_size
from slimnet.groups.branches import branches_of, find_branches, open_branches
from slimnet.groups.cut import apply_plan, channels_of, masked, slim_copy
from slimnet.groups.find import find_groups, keep_layers
from slimnet.groups.group import merge_plans, plan_for, shrink_groups
from slimnet.groups.prove import expanded_copy, prove_slim

EXAMPLE = torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(0))


def built(build):
    torch.manual_seed(0)
    model = build().eval()
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.bias)
            nn.init.uniform_(module.running_mean)
    groups, frozen = find_groups(model, EXAMPLE, layers="all")
    return model, groups, frozen


cases = pytest.mark.parametrize("case", ALL, ids=lambda case: case.name)


@cases
def test_each_branch_is_found_or_refused_with_the_reason(case):
    model, groups, _ = built(case.build)
    before = copy.deepcopy(model.state_dict())
    branches, needed = find_branches(model, groups, EXAMPLE)
    assert {b.name: (" ".join(b.gone), " ".join(b.constant)) for b in branches} == case.branches
    assert [name for name, _ in needed] == ([case.needed] if case.needed else [])
    assert all(NEEDED in reason for _, reason in needed)
    for name, value in model.state_dict().items():
        assert torch.equal(value, before[name])


@cases
def test_masked_is_slim_without_each_branch_and_without_all(case):
    model, groups, _ = built(case.build)
    branches, _ = find_branches(model, groups, EXAMPLE)
    plans = [branch.plan(groups) for branch in branches]
    for branch, plan in zip(branches, plans, strict=True):
        slim = slim_copy(model, plan)
        for name in branch.gone:
            assert isinstance(slim.get_submodule(name), NoChannels)
        for name in branch.constant:
            assert isinstance(slim.get_submodule(name), ConstantOutput)
    union = {}
    for plan in plans:
        union = merge_plans(union, plan)
    for plan in [*plans, union]:
        assert compare(model, plan, EXAMPLE).worst < 1e-12
        require_intact(model, plan)
        assert training_error(slim_copy(model, plan), EXAMPLE) == ""


@cases
def test_groups_shrink_with_a_branch_and_go_on_losing_units(case):
    model, groups, _ = built(case.build)
    for branch in find_branches(model, groups, EXAMPLE)[0]:
        first = branch.units(groups)
        slim = slim_copy(model, plan_for(groups, first))
        smaller = shrink_groups(groups, first)
        assert not {group.name for group in smaller} & set(branch.groups)
        layers = {member.module for group in smaller for member in group.members}
        assert not layers & set(branch.gone)
        gates = {gate.layer for group in smaller for gate in group.gates}
        assert not gates & set(branch.constant)
        plan = plan_for(groups, first, original=True)
        if smaller:
            second = random_units(smaller, 0.4, seed=0)
            assert compare(slim, plan_for(smaller, second), EXAMPLE).worst < 1e-12
            plan = merge_plans(plan, plan_for(smaller, second, original=True))
            slim = apply_plan(slim, plan_for(smaller, second))
        at_once, after = slim_copy(model, plan).state_dict(), slim.state_dict()
        assert at_once.keys() == after.keys()
        assert all(torch.equal(value, after[name]) for name, value in at_once.items())
        prove_slim(model, slim, plan, EXAMPLE)


def test_a_slim_network_that_was_repaired_is_proven_too():
    model, groups, _ = built(Inverted)
    plan = branches_of(model, groups)[1].plan(groups)
    slim = slim_copy(model, plan)
    with torch.no_grad():
        for parameter in slim.parameters():
            parameter.add_(torch.rand(parameter.shape))
    assert prove_slim(model, slim, plan, EXAMPLE).relative_error < 1e-12
    full = expanded_copy(model, slim, plan)
    with masked(full, plan):
        assert torch.allclose(full(EXAMPLE), slim(EXAMPLE), atol=1e-5)
    other = slim_copy(model, {})
    with pytest.raises(ProofError, match="plan"):
        prove_slim(model, other, plan, EXAMPLE)


def test_a_plan_is_replayed_on_a_fresh_network_with_a_strict_load():
    model, groups, _ = built(Bottleneck)
    (branch,) = find_branches(model, groups, EXAMPLE)[0]
    stream = random_units([groups[0]], 0.4, seed=0)[0]
    units = branch.units(groups)
    units[0] = stream
    plan = plan_for(groups, units)
    slim = slim_copy(model, plan)
    fresh = apply_plan(Bottleneck(), plan)
    fresh.load_state_dict(slim.state_dict(), strict=True)
    assert torch.equal(fresh.eval()(EXAMPLE), slim(EXAMPLE))
    assert "three.bias" not in slim.state_dict()
    assert channels_of(model, plan)["two"] == {"out": 4, "in": 4}


def test_a_body_takes_all_of_its_parameters_and_macs():
    model, groups, _ = built(Plain)
    (branch,) = find_branches(model, groups, EXAMPLE)[0]
    whole = measure_size(model, EXAMPLE)
    left = measure_size(model, EXAMPLE, lambda copied: apply_plan(copied, branch.plan(groups)))
    body = 6 * 4 * 9 * 2
    assert whole.macs - left.macs == body * 64
    assert whole.conv_weights - left.conv_weights == body
    assert whole.parameters - left.parameters == body + 4  # the bias of ``outer`` stays


def test_the_last_way_to_a_layer_is_no_branch_any_more():
    model, groups, _ = built(Concat)
    found = find_branches(model, groups, EXAMPLE)[0]
    branches = {branch.name: branch for branch in found}
    left = groups
    assert open_branches(model, left, found) == found
    for name in ("one", "two"):
        units = branches[name].units(left)
        model, left = apply_plan(model, plan_for(left, units)), shrink_groups(left, units)
    assert open_branches(model, left, found) == []
    again = {branch.name: branch for branch in branches_of(model, left)}
    # ``pooled`` has become the only way
    assert set(again["stem"].gone) == {"stem", "pooled", "reader"}
    assert "pooled" not in again


def test_kept_layers_keep_their_branch():
    model, groups, frozen = built(Dense)
    open_groups, _ = keep_layers(groups, frozen, ["grow1"])
    branches, needed = find_branches(model, open_groups, EXAMPLE, keep=["grow1"])
    assert [branch.name for branch in branches] == ["narrow2"]
    assert dict(needed)["narrow1"] == "it holds grow1, kept as asked (--keep grow1)"


def test_what_needs_channels_keeps_its_branch():
    class Pooled(Plain):
        def forward(self, x):
            x = self.stem(x).relu()
            y = nn.functional.max_pool2d(self.inner(x), 3, 1, 1)
            return self.head((x + self.outer(y)).mean((2, 3)))

    model, groups, _ = built(Pooled)
    branches, needed = find_branches(model, groups, EXAMPLE)
    assert branches == []
    assert "fails with fewer channels: y = nn.functional.max_pool2d" in dict(needed)["inner"]


def test_a_branch_inside_another_may_go_first():
    model, groups, _ = built(Inverted)
    outer, inner = find_branches(model, groups, EXAMPLE)[0]
    units = inner.units(groups)
    slim, left = slim_copy(model, plan_for(groups, units)), shrink_groups(groups, units)
    assert open_branches(slim, left, [outer, inner]) == [outer]
    slim = apply_plan(slim, outer.plan(left))
    plan = merge_plans(inner.plan(groups), outer.plan(left, original=True))
    assert slim(EXAMPLE).equal(slim_copy(model, outer.plan(groups))(EXAMPLE))
    prove_slim(model, slim, plan, EXAMPLE)


def test_branches_that_only_fail_all_at_once_are_found():
    class Pools(Concat):
        def forward(self, x):
            x = self.stem(x).relu()
            pooled = self.pooled(nn.functional.avg_pool2d(x, 3, 1, 1))
            x = torch.cat([self.one(x), self.three(self.two(x).relu()), pooled], 1)
            x = nn.functional.max_pool2d(self.norm(x).relu(), 2)
            return self.head(self.reader(x).mean((2, 3)))

    model, groups, _ = built(Pools)
    names = [branch.name for branch in find_branches(model, groups, EXAMPLE)[0]]
    assert names == ["one", "two", "pooled"]
