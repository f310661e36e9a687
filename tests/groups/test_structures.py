"""Structures that are easy to get wrong: each is right, or refused with the right reason."""

from __future__ import annotations

import pytest
import torch
from random_removal import (
    TOLERANCE,
    compare,
    random_units,
    require_complete,
    require_intact,
    training_error,
)
from structures import ALL
from structures.reasons import true_reasons

from slimnet.errors import InputError
from slimnet.groups.cut import slim_copy
from slimnet.groups.find import find_groups
from slimnet.groups.group import plan_for

pytestmark = pytest.mark.timeout(30)
THIRD = 1 / 3


def made(structure):
    torch.manual_seed(0)
    model = structure.build().eval()
    example = structure.example()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    learning = [p.requires_grad for p in model.parameters()]
    found = find_groups(model, example, layers="all")
    assert not model.training
    assert [p.requires_grad for p in model.parameters()] == learning
    for name, value in model.state_dict().items():
        assert torch.equal(value, before[name]), f"finding groups changed {name}"
    return model, example, *found


@pytest.fixture(scope="module", params=ALL, ids=lambda structure: structure.name)
def verdict(request):
    """The structure, and its network with its groups, which nothing may change, or a refusal."""
    try:
        return request.param, made(request.param)
    except InputError as refusal:
        return request.param, refusal


def test_verdict(verdict):
    structure, found = verdict
    if isinstance(found, InputError):
        if structure.prunable:  # to refuse all of a network is too much where parts of it can go
            raise found
        return
    model, _, groups, frozen = found
    require_complete(model, groups, frozen)
    offered = {gate.layer for group in groups for gate in group.gates}
    reasons = {entry.layer: entry.reason for entry in frozen}
    lost = {layer: reasons.get(layer) for layer in structure.prunable if layer not in offered}
    assert not lost, "layers that can lose units are not offered"
    assert set(structure.never) <= set(reasons), "layers that cannot lose units are offered"
    for layer, words in {**structure.never, **structure.words}.items():
        if layer in reasons:
            told = reasons[layer].lower()
            assert any(word in told for word in words), f"{layer}: {reasons[layer]}"
    written = dict(true_reasons(structure.name))
    for layer, reason in reasons.items():
        assert written.get(layer, "") in reason, f"{layer}: {reason}"
        known = {*written, *structure.never, *structure.words}
        assert layer in known, f"no true reason is written for {layer}: {reason}"


def test_what_is_offered_is_right(verdict):
    if isinstance(verdict[1], InputError):
        return
    model, example, groups, _ = verdict[1]
    for together in (groups, *([group] for group in groups)):
        plan = plan_for(together, random_units(together, THIRD, seed=1))
        worst, changes_output = compare(model, plan, example)
        assert worst <= TOLERANCE, [group.name for group in together]
        assert changes_output or together is not groups or not groups, "the outputs stay the same"
    plan = plan_for(groups, random_units(groups, THIRD, seed=2))
    require_intact(model, plan)
    if not training_error(model, example):
        assert training_error(slim_copy(model, plan), example) == ""
