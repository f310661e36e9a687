"""Distillation: the slim network learns from the original's scores as well as from labels."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional


def recovery_loss(
    model: nn.Module,
    original: nn.Module,
    inputs: Tensor,
    labels: Tensor,
    *,
    share: float,
    temperature: float,
) -> Tensor:
    """Return (1 - d) · cross-entropy + d · T² · KL(original‖model), the mean over images in nats.

    Neither network's weights are changed; the graph leads to the model's alone. T² makes the
    gradients of both parts equally long whatever the temperature (Hinton, Vinyals and Dean,
    Distilling the Knowledge in a Neural Network, 2015).

    Args:
        model: the network that learns; its forward is run in the mode it is in.
        original: the network it learns from; not run where d is 0.
        inputs: (images, ...).
        labels: (images,) int64; not used where d is 1.
        share: d, 0 to 1.
        temperature: T, which both networks' scores are divided by.
    """
    scores = model(inputs)
    loss = torch.zeros(())
    if share < 1:
        loss = loss + (1 - share) * functional.cross_entropy(scores, labels)
    if share > 0:
        # no inference_mode: what it makes cannot be used in a graph
        with torch.no_grad():
            wanted = functional.log_softmax(original(inputs) / temperature, 1)
        got = functional.log_softmax(scores / temperature, 1)
        distance = functional.kl_div(got, wanted, reduction="batchmean", log_target=True)
        loss = loss + share * temperature**2 * distance
    return loss
