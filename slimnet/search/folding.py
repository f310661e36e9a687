"""Folding: batch norms that only scale and shift a layer's output become part of its weights.

That saves a pass over every feature map. The folded network runs; what is repaired and removed is
the network as it is, and the new values of its parameters are folded as well.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from slimnet.groups import Group
from slimnet.recover import get_state, replaced

SAME = 1e-4
CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)


@torch.no_grad()
def norms_to_fold(
    model: nn.Module, groups: Iterable[Group], run: Callable[[nn.Module], Sequence[Tensor]]
) -> Mapping[str, str]:
    """Return, by layer, the batch norm that can be folded into it; the model is not changed.

    None are where the folded network does not give the same. ``run`` runs a network and returns
    its outputs.
    """
    norms = {
        member.module: member.norm
        for group in groups
        for member in group.members
        if member.norm is not None and _foldable(model, member.module, member.norm)
    }
    if not norms:
        return {}
    expected = run(model)
    try:
        got = run(folded(model, norms))
    except Exception:
        # the network's own code reads a norm or does without it otherwise: it stays as it is
        return {}
    same = len(got) == len(expected) and all(map(alike, got, expected))
    return norms if same else {}


def folded(model: nn.Module, norms: Mapping[str, str]) -> nn.Module:
    """Return a copy, in eval mode, with these norms folded into their layers, by layer.

    It shares with the model what is not folded.
    """
    shared: dict[int, Any] = {id(value): value for value in (*model.parameters(), *model.buffers())}
    gone = {id(model.get_submodule(norm)): nn.Identity() for norm in norms.values()}
    fast = copy.deepcopy(model, shared | gone)
    for layer, norm in norms.items():
        module = fast.get_submodule(layer)
        weight, bias = _folded_pair(model, layer, norm)
        module.weight, module.bias = (nn.Parameter(x, requires_grad=False) for x in (weight, bias))
    return fast


def folded_values(
    model: nn.Module, values: Mapping[str, Tensor], norms: Mapping[str, str]
) -> dict[str, Tensor]:
    """Return what new values of parameters and buffers of ``model`` are in the folded network.

    The model is as before on return.
    """
    pairs = [(layer, norm) for layer, norm in norms.items() if _touched(values, layer, norm)]
    inside = {module for pair in pairs for module in pair}
    found = {k: value for k, value in values.items() if k.rpartition(".")[0] not in inside}
    with replaced(model, values):
        for layer, norm in pairs:
            found[f"{layer}.weight"], found[f"{layer}.bias"] = _folded_pair(model, layer, norm)
    return found


def _touched(values: Mapping[str, Tensor], *modules: str) -> bool:
    return any(key.rpartition(".")[0] in modules for key in values)


def _folded_pair(model: nn.Module, layer: str, norm: str) -> tuple[Tensor, Tensor]:
    """Return the weight and bias of a layer with the norm after it."""
    epsilon = model.get_submodule(norm).eps
    assert isinstance(epsilon, float)
    mean, variance = (get_state(model, f"{norm}.running_{moment}") for moment in ("mean", "var"))
    scale = get_state(model, f"{norm}.weight") / (variance + epsilon).sqrt()
    weight, shift = get_state(model, f"{layer}.weight"), get_state(model, f"{norm}.bias")
    biased = model.get_submodule(layer).bias is not None
    bias = get_state(model, f"{layer}.bias") - mean if biased else -mean
    shape = (-1, *[1] * (weight.ndim - 1))
    return (weight * scale.reshape(shape)).detach(), (shift + bias * scale).detach()


def _foldable(model: nn.Module, layer: str, norm: str) -> bool:
    module, after = model.get_submodule(layer), model.get_submodule(norm)
    plain = type(module) in (*CONVOLUTIONS, nn.Linear)
    affine = getattr(after, "weight", None) is not None
    return plain and affine and getattr(after, "running_mean", None) is not None


def alike(got: Tensor, expected: Tensor) -> bool:
    """Tell whether two outputs are equal but for rounding."""
    scale = float(expected.abs().max())
    return torch.allclose(got, expected, rtol=SAME, atol=SAME * scale)
