"""The training loop: epochs over calibration images, by a recipe, the same for the same seed."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from slimnet.groups.sides import BATCH_NORMS, INSTANCE_NORMS
from slimnet.measure import Task
from slimnet.recover.distillation import own_recovery_loss, recovery_loss
from slimnet.recover.lessons import Lessons
from slimnet.recover.recipe import TrainingRecipe
from slimnet.recover.undo import gradients_on, in_mode

NORMS = (*BATCH_NORMS, *INSTANCE_NORMS, nn.GroupNorm, nn.LayerNorm, nn.RMSNorm)
MOMENTUM = 0.9


def train(
    model: nn.Module,
    original: nn.Module,
    lessons: Lessons,
    recipe: TrainingRecipe,
    seed: int,
    task: Task,
) -> tuple[float, ...]:
    """Change ``model`` in place: train its parameters and norm statistics.

    Args:
        model: the network that learns; its modes and gradient flags come back.
        original: the network it learns from, in eval mode, which is not changed.
        lessons: the images to train on.
        recipe: how to train.
        seed: of the order, the images' changes and the network's dropout, 0 to 2⁶⁴ - 1.
        task: whose loss is learnt.

    Returns:
        The mean loss of each epoch in nats, without the penalties. Training ends with the first
        one that is not finite.
    """
    generator = torch.Generator().manual_seed(seed)
    steps = recipe.epochs * lessons.steps
    losses: list[float] = []
    step = 0
    with in_mode(model, training=True), gradients_on(model), _own_random_state(seed):
        optimizer = make_optimizer(model, recipe)
        while len(losses) < recipe.epochs and (not losses or math.isfinite(losses[-1])):
            total = 0.0
            for batch in lessons.epoch(generator):
                rate = recipe.rate_at(step, steps)
                loss = _take_step(model, original, batch, recipe, optimizer, rate, task)
                total += task.images(batch) * loss
                step += 1
                if not math.isfinite(loss):
                    break
            losses.append(total / lessons.learning_images)
    return tuple(losses)


def _take_step(
    model: nn.Module,
    original: nn.Module,
    batch: Any,
    recipe: TrainingRecipe,
    optimizer: torch.optim.Optimizer,
    rate: float,
    task: Task,
) -> float:
    """Change the weights by one step and return the loss before it."""
    for part in optimizer.param_groups:
        part["lr"] = rate
    optimizer.zero_grad()
    share, temperature = recipe.distill_share, recipe.temperature
    if task.by_image:
        inputs, labels = batch
        loss = recovery_loss(model, original, inputs, labels, share=share, temperature=temperature)
    else:
        loss = own_recovery_loss(model, original, batch, task, share=share)
    penalised = loss
    if recipe.norm_scale_l1:
        penalised = loss + recipe.norm_scale_l1 * sum(g.abs().sum() for g in norm_scales(model))
    penalised.backward()  # type: ignore[no-untyped-call]
    nn.utils.clip_grad_norm_(model.parameters(), recipe.gradient_norm_limit)
    optimizer.step()
    return float(loss.detach())


def make_optimizer(model: nn.Module, recipe: TrainingRecipe) -> torch.optim.Optimizer:
    """Return the optimizer of all parameters that have gradients on; the model is not changed.

    Weight decay is for weights alone, not for biases and other vectors, nor for norms.
    """
    of_norms = {id(p) for m in model.modules() if isinstance(m, NORMS) for p in m.parameters()}
    weights: list[Tensor] = []
    others: list[Tensor] = []
    for parameter in model.parameters():
        if parameter.requires_grad:
            decays = parameter.ndim > 1 and id(parameter) not in of_norms
            (weights if decays else others).append(parameter)
    parts = [
        {"params": weights, "weight_decay": recipe.weight_decay},
        {"params": others, "weight_decay": 0.0},
    ]
    if recipe.optimizer == "adamw":
        return torch.optim.AdamW(parts, lr=recipe.highest_rate)
    return torch.optim.SGD(parts, lr=recipe.highest_rate, momentum=MOMENTUM, nesterov=True)


def norm_scales(model: nn.Module) -> list[Tensor]:
    """Return the scales γ of all norms of the model, which is not changed."""
    found = (getattr(m, "weight", None) for m in model.modules() if isinstance(m, NORMS))
    return [scale for scale in found if isinstance(scale, Tensor)]


@contextmanager
def _own_random_state(seed: int) -> Iterator[None]:
    """Seed what dropout draws from for the time of the block only, with gradients recorded."""
    with torch.enable_grad(), torch.random.fork_rng(devices=[]):
        # torch.manual_seed would also seed accelerators, which nothing here runs on
        torch.default_generator.manual_seed(seed)
        yield
