"""Is what the groups offer right? Units go at random, and masked and slim must be one function."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from random_weights import randomise
from torch import Tensor, nn
from torch.utils import _pytree

from slimnet.groups import Group, apply_plan, masked, output_channels, slim_copy
from slimnet.measure.forward import forward, in_float64, output_tensors
from slimnet.records import Frozen, Plan

TOLERANCE = 1e-8


class Difference(NamedTuple):
    """Masked against slim, as a share of the largest output, and whether anything went at all."""

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
    assert gone, f"of the group {group.name} nothing can go: it is no offer"
    return torch.tensor(sorted(gone))


def other_inputs(example: Any, seed: int) -> Any:
    """Return random inputs like the example; whole numbers are drawn from among its own."""
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
    """Return how far masked and slim are apart on other weights and two other inputs, in float64.

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
            assert one.isfinite().all(), "the masked output is not finite: nothing can be judged"
            scale = float(one.abs().max()) or 1.0
            error = float((one - other).abs().max()) / scale
            worst = max(worst, error if error == error else float("inf"))
            changed |= not torch.equal(one, original)
    return Difference(worst, changed)


def require_told(model: nn.Module, groups: Sequence[Group], frozen: Sequence[Frozen]) -> None:
    """Check that every layer that makes channels is in a group or frozen, once, with a reason."""
    offered = [gate.layer for group in groups for gate in group.gates]
    refused = [entry.layer for entry in frozen]
    layers = set(output_channels(model))
    assert layers <= {*offered, *refused}, f"untold: {sorted(layers - {*offered, *refused})}"
    assert len(refused) == len(set(refused)), f"frozen twice: {sorted(refused)}"
    # a depthwise layer behind a concatenation is in several groups, each with channels of its own
    sides = [
        (member.module, member.direction, place)
        for group in groups
        for member in group.members
        for place in member.index.tolist()
    ]
    assert len(sides) == len(set(sides)), "a channel stands in two groups"
    assert not set(offered) & set(refused), f"both: {sorted(set(offered) & set(refused))}"
    assert all(entry.reason.strip() for entry in frozen)


def require_intact(model: nn.Module, plan: Plan) -> None:
    """Check what slimming must leave alone: the model itself, ties, and which weights may learn."""
    before = copy.deepcopy(model.state_dict())
    learning = {name: p.requires_grad for name, p in model.named_parameters()}
    slim = slim_copy(model, plan)
    for name, value in model.state_dict().items():
        assert torch.equal(value, before[name]), f"slimming changed {name} of the original"
    now = {name: p.requires_grad for name, p in slim.named_parameters()}
    assert now == learning, "which parameters may learn has changed"
    assert _ties(slim) == _ties(model), "weights that were one are no longer"
    fewer = output_channels(slim)
    for layer, channels in output_channels(model).items():
        gone = len(plan.get(layer, {}).get("out", ()))
        assert fewer[layer] == channels - gone, f"{layer} says {fewer[layer]} channels"
    fresh = apply_plan(copy.deepcopy(model), plan)
    fresh.load_state_dict(slim.state_dict(), strict=True)


def _ties(model: nn.Module) -> set[frozenset[str]]:
    names: dict[int, set[str]] = {}
    for name, parameter in model.named_parameters(remove_duplicate=False):
        names.setdefault(id(parameter), set()).add(name)
    return {frozenset(together) for together in names.values() if len(together) > 1}


def learns(model: nn.Module, example: Any) -> str:
    """Return what one training pass of a copy raises, forward and backward; "" if it runs."""
    subject = copy.deepcopy(model).train()
    try:
        outputs = output_tensors(forward(subject, other_inputs(example, 4)))
        sum(output.square().mean() for output in outputs).backward()
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    return ""
