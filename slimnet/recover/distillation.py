"""Distillation: the slim network learns from the original's scores as well as from labels."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from slimnet.errors import InputError
from slimnet.measure import Task

LEAST_SQUARE = 1e-12


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


def own_recovery_loss(
    model: nn.Module, original: nn.Module, batch: Any, task: Task, *, share: float
) -> Tensor:
    """Return (1 - d) · the task's loss + d · the squared distance from the original's outputs.

    The distance of each output is a share of the original's mean square, so that it has no unit;
    outputs count alike. What they mean only the task knows, so there is no temperature. Neither
    network's weights are changed; the graph leads to the model's alone.

    Args:
        model: the network that learns; its forward is run in the mode it is in.
        original: the network it learns from, in eval mode; not run where d is 0.
        batch: of the task.
        task: gives the loss.
        share: d, 0 to 1.

    Raises:
        InputError: the networks give outputs of other numbers or shapes, as in train mode only.
    """
    value, got = task.watched_loss(model, batch)
    value = value.reshape(())
    if share == 0:
        return value
    with torch.no_grad():
        wanted = task.outputs(original, batch)
    if [output.shape for output in got] != [output.shape for output in wanted]:
        raise InputError(
            "distillation compares outputs, but the network gives other ones in train mode than "
            "in eval mode; switch it off with --distill 0"
        )
    apart = [
        (one - other).square().mean() / other.square().mean().clamp_min(LEAST_SQUARE)
        for one, other in zip(got, wanted, strict=True)
    ]
    return (1 - share) * value + share * torch.stack(apart).mean()
