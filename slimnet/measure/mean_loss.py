"""The mean loss of a network over batches, whatever the task."""

from __future__ import annotations

import torch
from torch import nn

from slimnet.measure.classification import CLASSIFICATION
from slimnet.measure.task import Task
from slimnet.records import Batches


def mean_loss(model: nn.Module, batches: Batches, task: Task = CLASSIFICATION) -> float:
    """Return the mean of the task's loss over all images, in nats; the model is not changed."""
    total, images = 0.0, 0
    with torch.inference_mode():
        for batch in batches:
            total += float(task.total_loss(model, batch))
            images += task.images(batch)
    return total / images
