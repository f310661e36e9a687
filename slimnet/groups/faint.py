"""Groups on which the output hardly depends: what is wrong with one may go unseen beside others."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from slimnet.groups.group import Group
from slimnet.load import copied_in
from slimnet.measure import fill_batch, forward, output_tensors

FAINT = 1e-5  # of the output's scale, summed over all positions: up to 3,000 times the change


def faint_groups(model: nn.Module, example: Any, groups: Sequence[Group]) -> list[Group]:
    """Return the groups whose channels, to first order, change next to nothing in the output.

    Activation times gradient, absolute, of one image in float32. The model is not changed. Where
    there are no gradients nothing is known, so that all groups are returned.
    """
    subject = copied_in(model, torch.float32).requires_grad_(False)
    try:
        effects = _effects(subject, fill_batch(example, 1), groups)
    except Exception:  # whatever the network's own code raises where gradients are asked for
        return list(groups)
    return [
        group
        for group in groups
        if not sum(effects.get(gate.layer, 0.0) for gate in group.gates) >= FAINT
    ]


def _effects(model: nn.Module, image: Any, groups: Sequence[Group]) -> dict[str, float]:
    """Return how much the output depends on each layer that makes channels, as a share of it."""
    seen: list[tuple[str, Tensor]] = []

    def watch(layer: str, _module: nn.Module, _inputs: Any, output: Tensor) -> Tensor:
        if not output.requires_grad:
            output = output.requires_grad_()
        seen.append((layer, output))
        return output.clone()  # nothing may work in place on what was seen

    for gate in {gate for group in groups for gate in group.gates}:
        model.get_submodule(gate.module).register_forward_hook(partial(watch, gate.layer))
    with torch.enable_grad():
        total = torch.stack([_projected(p) for p in output_tensors(forward(model, image))]).sum()
        gradients = torch.autograd.grad(total, [output for _, output in seen], allow_unused=True)
    effects: dict[str, float] = {}
    for (layer, output), gradient in zip(seen, gradients, strict=True):
        if gradient is not None:
            effect = float((output.detach() * gradient).abs().sum())
            effects[layer] = effects.get(layer, 0.0) + effect
    return effects


def _projected(part: Tensor) -> Tensor:
    """Return an output as one number, its elements weighed at random, by its scale."""
    weights = torch.randn(part.shape, generator=torch.Generator().manual_seed(0))
    scale = part.detach().abs().max().clamp_min(torch.finfo(part.dtype).tiny)
    return (part * weights).sum() / scale
