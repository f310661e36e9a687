"""Fine-tuning: a short training of the slim network on the calibration images."""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from slimnet.errors import InputError
from slimnet.execution import (
    BATCH_NORMS,
    INSTANCE_NORMS,
    copied_state,
    gradients_on,
    in_mode,
    set_values,
    undone_on_failure,
)
from slimnet.finetune.training_data import TrainingData, make_training_data
from slimnet.load import attributes_kept
from slimnet.options import FinetuneOptions
from slimnet.records import Batches, FineTuning
from slimnet.tasks import CLASSIFICATION, Task, mean_loss, require_finite_loss

PROBLEM = "fine-tuning runs the network in train mode and fails: {}; leave fine-tuning out"
NORMS = (*BATCH_NORMS, *INSTANCE_NORMS, nn.GroupNorm, nn.LayerNorm, nn.RMSNorm)
# what follows is customary for a few epochs of fine-tuning; no experiment chose it
USUAL_RATES = {"sgd": 0.01, "adamw": 5e-4}
MOMENTUM = 0.9  # in Nesterov's form
BATCH_IMAGES = 64  # of a step, at most
WARMUP_SHARE = 0.05  # of the steps, in which the rate rises from 0
TEMPERATURE = 2.0  # both networks' scores are divided by it for distillation
MAX_GRADIENT_NORM = 5.0  # longer gradients are cut to this length


def finetune(
    model: nn.Module,
    original: nn.Module,
    batches: Batches,
    options: FinetuneOptions,
    *,
    seed: int,
    task: Task = CLASSIFICATION,
) -> FineTuning:
    """Change ``model`` in place: train it, and keep that if the loss of images held back falls.

    Modes, gradient flags and the caller's random state are as before in the end. On one machine,
    with the same number of threads, the same seed gives the same weights bit for bit.

    Args:
        model: the slim network; its parameters and buffers change, or none of them.
        original: the network before anything was removed, which is not changed.
        batches: calibration images; every eighth image of a class is held back, or every eighth
            batch of a task of the user's own.
        options: how to train; the seed in it is not read.
        seed: of the images' order, their augmentation and the network's dropout, 0 to 2⁶⁴ - 1.
        task: whose loss is minimised, and measured on the images held back.

    Returns:
        The losses, and why the new weights were not kept: the loss of the images held back rose, or
        the training's loss became NaN or infinite.

    Raises:
        InputError: the network cannot be trained at all, since its train mode or the backward
            pass fails, or its loss is not finite to begin with. It is as it was.
    """
    before = copied_state(model)
    with undone_on_failure(model, before, PROBLEM), in_mode(original, training=False):
        data = make_training_data(
            original, batches, task,
            batch_images=BATCH_IMAGES, augment=options.augment, seed=seed,
        )  # fmt: skip
        loss = _evaluate(model, data.held_out, task)
        require_finite_loss(loss, "calibration")
        epoch_losses = _train(model, original, data, options, seed, task)
        after = _evaluate(model, data.held_out, task)
        undone_because = _why_undone(epoch_losses, loss, after)
        if undone_because:
            set_values(model, before)
    return FineTuning(
        epoch_losses_nats=epoch_losses,
        loss_before_nats=loss,
        loss_after_nats=after,
        learning_images=data.learning.images,
        judging_images=data.held_out.images,
        augmentations=tuple(data.changes),
        undone_because=undone_because,
    )


def _evaluate(model: nn.Module, batches: Batches, task: Task) -> float:
    with in_mode(model, training=False):
        return mean_loss(model, batches, task)


def _why_undone(epoch_losses: tuple[float, ...], before: float, after: float) -> str:
    """Return why the old weights are set again, or an empty string."""
    if not math.isfinite(epoch_losses[-1]):
        return (
            f"the loss became {epoch_losses[-1]} in epoch {len(epoch_losses)}; "
            "a lower learning rate may help"
        )
    if not after <= before:
        return (
            f"the loss of the images held back rose from {before:.4f} to {after:.4f} nats; "
            "a lower learning rate or more images may help"
        )
    return ""


def _train(
    model: nn.Module,
    original: nn.Module,
    data: TrainingData,
    options: FinetuneOptions,
    seed: int,
    task: Task,
) -> tuple[float, ...]:
    """Change ``model`` in place: train its parameters and norm statistics.

    Args:
        model: the network that learns; its modes and gradient flags come back.
        original: the network it learns from, in eval mode, which is not changed.
        data: the images to train on.
        options: how to train.
        seed: of the order, the images' changes and the network's dropout, 0 to 2⁶⁴ - 1.
        task: whose loss is minimised.

    Returns:
        The mean loss of each epoch in nats, without the penalties. Training ends at the first one
        that is not finite.
    """
    generator = torch.Generator().manual_seed(seed)
    steps = options.finetune_epochs * data.steps
    losses: list[float] = []
    step = 0
    with (
        in_mode(model, training=True),
        attributes_kept(model),
        gradients_on(model),
        _own_random_state(seed),
    ):
        optimizer = make_optimizer(model, options)
        while len(losses) < options.finetune_epochs and (not losses or math.isfinite(losses[-1])):
            total = 0.0
            for batch in data.epoch(generator):
                rate = rate_at(step, steps, options)
                loss = _take_step(model, original, batch, options, optimizer, rate, task)
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
    options: FinetuneOptions,
    optimizer: torch.optim.Optimizer,
    rate: float,
    task: Task,
) -> float:
    """Change the weights by one step and return the loss before it, without the penalty.

    The penalty is in nats per unit of Σ|γ| over the scales of norms (Liu et al., Learning Efficient
    Convolutional Networks through Network Slimming, 2017).
    """
    for part in optimizer.param_groups:
        part["lr"] = rate
    optimizer.zero_grad()
    loss = recovery_loss(model, original, batch, task, options.distill)
    penalised = loss
    if options.norm_scale_l1:
        penalised = loss + options.norm_scale_l1 * sum(g.abs().sum() for g in norm_scales(model))
    penalised.backward()  # type: ignore[no-untyped-call]
    nn.utils.clip_grad_norm_(model.parameters(), MAX_GRADIENT_NORM)
    optimizer.step()
    return float(loss.detach())


def rate_at(step: int, steps: int, options: FinetuneOptions) -> float:
    """Return the learning rate of a step, counted from 0: linear warm-up times cosine to 0."""
    rise = min(1.0, (step + 1) / max(1, round(WARMUP_SHARE * steps)))
    return _highest_rate(options) * rise * (1 + math.cos(math.pi * step / steps)) / 2


def _highest_rate(options: FinetuneOptions) -> float:
    rate = options.learning_rate
    return USUAL_RATES[options.optimizer] if rate is None else rate


def recovery_loss(
    model: nn.Module, original: nn.Module, batch: Any, task: Task, share: float
) -> Tensor:
    """Return (1 - d) · the task's loss + d · the task's distance from the original's outputs.

    Neither network's weights are changed; the graph leads to the model's alone.

    Args:
        model: the network that learns; its forward is run in the mode it is in.
        original: the network it learns from, in eval mode; not run where d is 0.
        batch: of the task.
        task: gives the loss and the distance.
        share: d, 0 to 1.

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
    distance = task.distance(outputs, wanted, TEMPERATURE)
    return share * distance if share == 1 else (1 - share) * loss + share * distance


def make_optimizer(model: nn.Module, options: FinetuneOptions) -> torch.optim.Optimizer:
    """Return the optimizer of all parameters that have gradients on; the model is not changed.

    Weight decay is for weights alone, not for biases and other vectors, nor for norms. It is L2
    with sgd, decoupled with adamw.
    """
    of_norms = {id(p) for m in model.modules() if isinstance(m, NORMS) for p in m.parameters()}
    weights: list[Tensor] = []
    others: list[Tensor] = []
    for parameter in model.parameters():
        if parameter.requires_grad:
            decays = parameter.ndim > 1 and id(parameter) not in of_norms
            (weights if decays else others).append(parameter)
    parts = [
        {"params": weights, "weight_decay": options.weight_decay},
        {"params": others, "weight_decay": 0.0},
    ]
    if options.optimizer == "adamw":
        return torch.optim.AdamW(parts, lr=_highest_rate(options))
    return torch.optim.SGD(parts, lr=_highest_rate(options), momentum=MOMENTUM, nesterov=True)


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
