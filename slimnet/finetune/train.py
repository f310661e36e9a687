"""How a network is trained: the recipe, the loss with distillation, and the loop."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from slimnet.errors import InputError
from slimnet.execution import BATCH_NORMS, INSTANCE_NORMS, gradients_on, in_mode
from slimnet.finetune.training_data import TrainingData
from slimnet.tasks import Task

USUAL_RATES = {"sgd": 0.01, "adamw": 5e-4}
NORMS = (*BATCH_NORMS, *INSTANCE_NORMS, nn.GroupNorm, nn.LayerNorm, nn.RMSNorm)
MOMENTUM = 0.9  # customary, as is Nesterov's form


@dataclass(frozen=True)
class TrainingRecipe:
    """How to train a slim network for a short while.

    The defaults are customary for a few epochs of fine-tuning; no experiment chose them.

    Args:
        epochs: passes over the images.
        optimizer: ``sgd`` (Nesterov) or ``adamw``.
        learning_rate: the highest one; None is 0.01 for sgd and 0.0005 for adamw.
        batch_images: images a step, at most.
        warmup_share: the share of the steps, 0 to 1, in which the rate rises from 0; over all
            steps a cosine takes it down to 0.
        distill_share: d, 0 to 1: the loss is (1 - d) times the task's and d times the
            distillation's.
        temperature: what both networks' scores are divided by for distillation.
        norm_scale_l1: nats per unit of Σ|γ| over the scales of norms (Liu et al., Learning
            Efficient Convolutional Networks through Network Slimming, 2017); 0 is none.
        weight_decay: of weights only, not of biases and norms; L2 with sgd, decoupled with adamw.
        gradient_norm_limit: longer gradients are cut to this length; inf never cuts.
        augment: mirror and shift images, where the original recognises such images too.
    """

    epochs: int = 5
    optimizer: str = "sgd"
    learning_rate: float | None = None
    batch_images: int = 64
    warmup_share: float = 0.05
    distill_share: float = 0.5
    temperature: float = 2.0
    norm_scale_l1: float = 0.0
    weight_decay: float = 1e-4
    gradient_norm_limit: float = 5.0
    augment: bool = True

    @property
    def highest_rate(self) -> float:
        """The learning rate after the warm-up."""
        return USUAL_RATES[self.optimizer] if self.learning_rate is None else self.learning_rate

    def rate_at(self, step: int, steps: int) -> float:
        """Return the learning rate of a step, counted from 0: linear warm-up times cosine."""
        rise = min(1.0, (step + 1) / max(1, round(self.warmup_share * steps)))
        return self.highest_rate * rise * (1 + math.cos(math.pi * step / steps)) / 2


def recovery_loss(
    model: nn.Module, original: nn.Module, batch: Any, task: Task, *, share: float,
    temperature: float,
) -> Tensor:  # fmt: skip
    """Return (1 - d) · the task's loss + d · the task's distance from the original's outputs.

    Neither network's weights are changed; the graph leads to the model's alone.

    Args:
        model: the network that learns; its forward is run in the mode it is in.
        original: the network it learns from, in eval mode; not run where d is 0.
        batch: of the task.
        task: gives the loss and the distance.
        share: d, 0 to 1.
        temperature: of the distance, for tasks that have a use for it.

    Raises:
        InputError: the networks give outputs of other numbers or shapes, as in train mode only.
    """
    loss, outputs = task.loss_and_outputs(model, batch)
    if share == 0:
        return loss
    with torch.no_grad():  # not inference_mode, whose tensors no graph may use
        wanted = task.outputs(original, batch)
    if [output.shape for output in outputs] != [output.shape for output in wanted]:
        raise InputError(
            "distillation compares outputs, but the network gives other ones in train mode than "
            "in eval mode; switch it off with --distill 0"
        )
    distance = task.distance(outputs, wanted, temperature)
    return share * distance if share == 1 else (1 - share) * loss + share * distance


def train(
    model: nn.Module,
    original: nn.Module,
    data: TrainingData,
    recipe: TrainingRecipe,
    seed: int,
    task: Task,
) -> tuple[float, ...]:
    """Change ``model`` in place: train its parameters and norm statistics.

    Args:
        model: the network that learns; its modes and gradient flags come back.
        original: the network it learns from, in eval mode, which is not changed.
        data: the images to train on.
        recipe: how to train.
        seed: of the order, the images' changes and the network's dropout, 0 to 2⁶⁴ - 1.
        task: whose loss is minimised.

    Returns:
        The mean loss of each epoch in nats, without the penalties. Training ends at the first one
        that is not finite.
    """
    generator = torch.Generator().manual_seed(seed)
    steps = recipe.epochs * data.steps
    losses: list[float] = []
    step = 0
    with in_mode(model, training=True), gradients_on(model), _own_random_state(seed):
        optimizer = make_optimizer(model, recipe)
        while len(losses) < recipe.epochs and (not losses or math.isfinite(losses[-1])):
            total = 0.0
            for batch in data.epoch(generator):
                rate = recipe.rate_at(step, steps)
                loss = _take_step(model, original, batch, recipe, optimizer, rate, task)
                total += task.images(batch) * loss
                step += 1
                if not math.isfinite(loss):
                    break
            losses.append(total / data.learning.images)
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
    loss = recovery_loss(
        model, original, batch, task, share=recipe.distill_share, temperature=recipe.temperature
    )
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
