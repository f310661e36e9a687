"""Fine-tuning: a short training of the slim network on the calibration images.

What was removed cannot come back: the channels are gone, not masked.
"""

from __future__ import annotations

import math

from torch import nn

from slimnet.measure import CLASSIFICATION, Task, mean_loss, require_finite_loss
from slimnet.records import Batches, FineTuning
from slimnet.recover.lessons import make_lessons
from slimnet.recover.recipe import TrainingRecipe
from slimnet.recover.repair import set_values
from slimnet.recover.train import train
from slimnet.recover.undo import copied_state, in_mode, undone_on_failure

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
    """Change ``model`` in place: train it, and keep that if images not trained on get better.

    Modes, gradient flags and the random state of the caller are as before in the end. On one
    machine, with the same number of threads, the same seed gives the same weights bit for bit.

    Args:
        model: the slim network; its parameters and buffers change, or none of them.
        original: the network before anything was removed, which is not changed.
        batches: calibration images; every eighth image of a class only judges, or every eighth
            batch where the task does not know single images.
        recipe: how to train.
        seed: of the images' order, their augmentation and the network's dropout, 0 to 2⁶⁴ - 1.
        task: whose loss is learnt and judges.

    Returns:
        What was measured, and whether the new weights were kept. They are not where the loss of
        the images held back rose, or the training's loss became NaN or infinite.

    Raises:
        InputError: the network cannot be trained at all, since its train mode or the backward
            pass fails, or its loss is not finite to begin with. It is as it was.
    """
    before = copied_state(model)
    with undone_on_failure(model, before, PROBLEM), in_mode(original, training=False):
        lessons = make_lessons(original, batches, recipe, seed, task)
        loss = _evaluate(model, lessons.judging, task)
        require_finite_loss(loss, "calibration")
        epoch_losses = train(model, original, lessons, recipe, seed, task)
        after = _evaluate(model, lessons.judging, task)
        undone_because = _why_undone(epoch_losses, loss, after)
        if undone_because:
            set_values(model, before)
    return FineTuning(
        epoch_losses_nats=epoch_losses,
        loss_before_nats=loss,
        loss_after_nats=after,
        learning_images=lessons.learning_images,
        judging_images=lessons.judging_images,
        augmentations=tuple(lessons.changes),
        undone_because=undone_because,
    )


def _evaluate(model: nn.Module, batches: Batches, task: Task) -> float:
    with in_mode(model, training=False):
        return mean_loss(model, batches, task)


def _why_undone(epoch_losses: tuple[float, ...], before: float, after: float) -> str:
    """Return why the old weights come back, or an empty string."""
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
