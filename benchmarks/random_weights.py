"""Other weights for a network, to check on them what was proven with the first weights."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn

from slimnet.tasks.calls import forward

NORMS = (
    nn.modules.batchnorm._NormBase,  # batch and instance norms
    nn.GroupNorm,
    nn.LayerNorm,
)


@torch.no_grad()
def randomise(model: nn.Module, inputs: Any, seed: int) -> None:
    """Change the model in place: every parameter is drawn anew, and running statistics fit them.

    Biases, norms' weights, scales and slopes differ from channel to channel, and none is zero.
    Equal or zero weights could hide a mistake. Statistics come from one pass over ``inputs``, times
    a random factor. Activations stay of the order of 1 in networks of any depth.
    """
    generator = torch.Generator().manual_seed(seed)
    for module in model.modules():
        for name, parameter in module.named_parameters(recurse=False):
            parameter.copy_(_values(module, name, parameter, generator))
    norms = [m for m in model.modules() if isinstance(m, NORMS[0]) and m.running_mean is not None]
    if norms:
        _estimate(model, norms, inputs)
    for norm in norms:
        shift, stretch = (torch.rand(norm.num_features, generator=generator) for _ in range(2))
        norm.running_mean += (shift - 0.5).to(norm.running_mean)
        norm.running_var.mul_((0.5 + stretch).to(norm.running_var)).add_(0.1)


def _values(module: nn.Module, name: str, old: Tensor, generator: torch.Generator) -> Tensor:
    drawn = torch.randn(old.shape, generator=generator)
    if isinstance(module, NORMS) and name == "weight":
        return 1 + 0.3 * drawn
    if old.dim() < 2 or old.numel() == max(old.shape):
        # biases, and parameters with one number per channel: layer scales, slopes
        return 0.3 * drawn if name.endswith("bias") else 0.1 + 0.8 * torch.sigmoid(drawn)
    inputs = old[0].numel() if name == "weight" else old.shape[-1]
    return drawn * math.sqrt(2 / inputs)


def _estimate(model: nn.Module, norms: list[Any], inputs: Any) -> None:
    before = [(norm.training, norm.momentum) for norm in norms]
    for norm in norms:
        norm.training, norm.momentum = True, 1.0
    forward(model, inputs)
    for norm, (training, momentum) in zip(norms, before, strict=True):
        norm.training, norm.momentum = training, momentum
