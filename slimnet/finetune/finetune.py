"""Fine-tuning: a short training of the slim network on the calibration images."""

from __future__ import annotations

import math

from torch import nn

from slimnet.execution import copied_state, in_mode, set_values, undone_on_failure
from slimnet.finetune.train import TrainingRecipe, train
from slimnet.finetune.training_data import make_training_data
from slimnet.records import Batches, FineTuning
from slimnet.tasks import CLASSIFICATION, Task, mean_loss, require_finite_loss

PROBLEM = "fine-tuning runs the network in train mode and fails: {}; leave fine-tuning out"


def finetune(
    model: nn.Module,
    original: nn.Module,
    batches: Batches,
    recipe: TrainingRecipe,
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
        recipe: how to train.
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
            batch_images=recipe.batch_images, augment=recipe.augment, seed=seed,
        )  # fmt: skip
        loss = _evaluate(model, data.held_out, task)
        require_finite_loss(loss, "calibration")
        epoch_losses = train(model, original, data, recipe, seed, task)
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
