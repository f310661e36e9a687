"""Checks of groups: units go at random, and the masked and the slim network must agree."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from random_weights import randomise
from torch import Tensor, nn
from torch.utils import _pytree

from slimnet.execution.layers import output_channels
from slimnet.groups.cut import cut_out, masked, slim_copy
from slimnet.groups.group import Group
from slimnet.records.data import Frozen, Plan
from slimnet.tasks.calls import forward, in_float64, output_tensors

TOLERANCE = 1e-8


class Difference(NamedTuple):
    """Masked against slim, as a share of the largest output.

    ``changes_output`` says whether the removal changed the output at all.
    """

    worst: float
    changes_output: bool


def random_units(groups: Sequence[Group], share: float, seed: int) -> list[Tensor]:
    """Return about this share of every group's units, at least one; every layer keeps a channel."""
    generator = torch.Generator().manual_seed(seed)
    return [_from_one(group, share, generator) for group in groups]


def _from_one(group: Group, share: float, generator: torch.Generator) -> Tensor:
    wanted = max(1, int(share * group.units))
    gone: list[int] = []
    for unit in torch.randperm(group.units, generator=generator).tolist():
        trial = torch.tensor([*gone, unit])
        if all(not bool(torch.isin(m.unit, trial).all()) for m in group.members):
            gone.append(unit)
        if len(gone) == wanted:
            break
    assert gone, f"the group {group.name} has no unit that can go"
    return torch.tensor(sorted(gone))


def other_inputs(example: Any, seed: int) -> Any:
    """Return random inputs like the example. Whole numbers are drawn from the example's own."""
    generator = torch.Generator().manual_seed(seed)

    def draw(leaf: Any) -> Any:
        if not isinstance(leaf, Tensor):
            return leaf
        if leaf.is_floating_point():
            return torch.randn(leaf.shape, generator=generator, dtype=leaf.dtype)
        chosen = torch.randint(leaf.numel(), leaf.shape, generator=generator)
        return leaf.flatten()[chosen]

    return _pytree.tree_map(draw, example)


@torch.no_grad()
def compare(model: nn.Module, plan: Plan, example: Any, seed: int = 0) -> Difference:
    """Return the difference of masked and slim on other weights and two other inputs, in float64.

    The model is not changed.

    Raises:
        AssertionError: an output has another shape, or is not finite.
    """
    subject = copy.deepcopy(model).double().eval()
    randomise(subject, in_float64(other_inputs(example, seed + 1)), seed)
    slim = slim_copy(subject, plan)
    worst, changed = 0.0, False
    for number in (2, 3):
        inputs = in_float64(other_inputs(example, seed + number))
        with masked(subject, plan):
            expected = output_tensors(forward(subject, inputs))
        found = output_tensors(forward(slim, inputs))
        whole = output_tensors(forward(subject, inputs))
        for one, other, original in zip(expected, found, whole, strict=True):
            assert one.shape == other.shape, f"{tuple(one.shape)} became {tuple(other.shape)}"
            assert one.isfinite().all(), "the masked output is not finite, so it cannot be compared"
            scale = float(one.abs().max()) or 1.0
            error = float((one - other).abs().max()) / scale
            worst = max(worst, error if error == error else float("inf"))
            changed |= not torch.equal(one, original)
    return Difference(worst, changed)


def require_complete(model: nn.Module, groups: Sequence[Group], frozen: Sequence[Frozen]) -> None:
    """Check that every layer with channels is in a group or frozen, once, with a reason."""
    offered = [gate.layer for group in groups for gate in group.gates]
    refused = [entry.layer for entry in frozen]
    layers = set(output_channels(model))
    assert layers <= {*offered, *refused}, (
        f"in no group and not frozen: {sorted(layers - {*offered, *refused})}"
    )
    assert len(refused) == len(set(refused)), f"frozen twice: {sorted(refused)}"
    # a depthwise layer behind a concatenation is in several groups, with other channels in each
    places = [
        (member.module, member.direction, place)
        for group in groups
        for member in group.members
        for place in member.index.tolist()
    ]
    assert len(places) == len(set(places)), "a channel is in two groups"
    assert not set(offered) & set(refused), f"both: {sorted(set(offered) & set(refused))}"
    assert all(entry.reason.strip() for entry in frozen)


def require_intact(model: nn.Module, plan: Plan) -> None:
    """Check that slimming does not change the model itself, tied weights, or ``requires_grad``."""
    before = copy.deepcopy(model.state_dict())
    learning = {name: p.requires_grad for name, p in model.named_parameters()}
    slim = slim_copy(model, plan)
    for name, value in model.state_dict().items():
        assert torch.equal(value, before[name]), f"slimming changed {name} of the original"
    now = {name: p.requires_grad for name, p in slim.named_parameters()}
    assert all(learning[name] == flag for name, flag in now.items()), (
        "requires_grad of some parameters has changed"
    )
    assert _ties(slim) == _ties(model), "tied weights are no longer tied"
    fewer = output_channels(slim, removed=True)
    for layer, channels in output_channels(model).items():
        gone = len(plan.get(layer, {}).get("out", ()))
        assert fewer[layer] == channels - gone, f"{layer} has {fewer[layer]} channels"
    fresh = cut_out(copy.deepcopy(model), plan)
    fresh.load_state_dict(slim.state_dict(), strict=True)


def _ties(model: nn.Module) -> set[frozenset[str]]:
    names: dict[int, set[str]] = {}
    for name, parameter in model.named_parameters(remove_duplicate=False):
        names.setdefault(id(parameter), set()).add(name)
    return {frozenset(together) for together in names.values() if len(together) > 1}


def training_error(model: nn.Module, example: Any) -> str:
    """Return the error of one training pass of a copy, both directions; "" if there is none."""
    subject = copy.deepcopy(model).train()
    try:
        outputs = output_tensors(forward(subject, other_inputs(example, 4)))
        sum(output.square().mean() for output in outputs).backward()
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    return ""
