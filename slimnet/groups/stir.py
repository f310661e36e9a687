"""Noise on every weight, so that nothing stays hidden behind zeros."""

from __future__ import annotations

import torch
from torch import Tensor, nn

STIRRING = 0.3


@torch.no_grad()
def stir(model: nn.Module, seed: int) -> None:
    """Change the model in place: noise as large as fresh weights would be, on all it has."""
    generator = torch.Generator().manual_seed(seed)

    def uniform(state: Tensor) -> Tensor:
        # above zero: a variance stays one, and a scale that was next to nothing becomes one
        return torch.rand(state.shape, generator=generator, dtype=state.dtype).add_(0.5)

    for parameter in filter(torch.is_floating_point, model.parameters()):
        if parameter.ndim > 1:
            # in float32, which is made several times as fast; of variance 1
            noise = torch.rand(parameter.shape, generator=generator).sub_(0.5)
            parameter.add_(noise, alpha=STIRRING * (12 / parameter[0].numel()) ** 0.5)
        elif parameter.ndim == 1:
            parameter.add_(uniform(parameter), alpha=STIRRING)
    for name, buffer in model.named_buffers():
        if name.endswith(("running_mean", "running_var")):
            buffer.add_(uniform(buffer), alpha=STIRRING)
