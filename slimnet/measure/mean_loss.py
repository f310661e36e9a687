"""The mean loss of a network over batches, whatever the task."""

from __future__ import annotations

from functools import partial

import torch
from torch import nn

from slimnet.measure.classification import CLASSIFICATION
from slimnet.measure.forward import CallBatch, call_plainly
from slimnet.measure.task import Task
from slimnet.records import Batches


def mean_loss(
    model: nn.Module,
    batches: Batches,
    task: Task = CLASSIFICATION,
    call: CallBatch = call_plainly,
) -> float:
    """Return the mean of the task's loss over all images, in nats; the model is not changed.

    ``call`` is given the number of each batch and what runs the model on it, and runs that.
    """
    total, images = 0.0, 0
    with torch.inference_mode():
        for number, batch in enumerate(batches):
            total += float(call(number, partial(task.total_loss, model, batch)))
            images += task.images(batch)
    return total / images
