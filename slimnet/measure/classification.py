"""The task of classification: one label an image, so that every image can be judged on its own."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional

from slimnet.load import check_pair
from slimnet.measure.drop import judge_drop, paired_drop
from slimnet.measure.forward import CallBatch, call_plainly
from slimnet.measure.quality import Quality, measure_quality, require_better_than_chance
from slimnet.measure.task import Task
from slimnet.records import Batch, Batches, Drop, Split, Splits


def mean_cross_entropy(model: nn.Module, batch: Batch) -> Tensor:
    """Return the mean cross-entropy of a batch in nats; the model is not changed."""
    inputs, labels = batch
    return functional.cross_entropy(model(inputs), labels)


def top_1_accuracy(model: nn.Module, batches: Iterable[Batch]) -> float:
    """Return the accuracy in percent; the model is not changed."""
    right = [model(inputs).argmax(1) == labels for inputs, labels in batches]
    return 100 * float(torch.cat(right).double().mean())


class Classification(Task):
    """Cross-entropy and top-1 accuracy of a network with (N, classes) scores for one tensor.

    Batches are (inputs (images, ...), labels (images,) int64).
    """

    by_image: ClassVar[bool] = True

    @property
    def quantity(self) -> str:
        """See Task."""
        return "accuracy"

    def images(self, batch: Batch) -> int:
        """See Task."""
        return len(batch[1])

    def losses(self, model: nn.Module, batch: Batch) -> Tensor:
        """See Task: the cross-entropy of each image in nats."""
        inputs, labels = batch
        return functional.cross_entropy(model(inputs), labels, reduction="none")

    def total_loss(self, model: nn.Module, batch: Batch) -> Tensor:
        """See Task: the sum of the images' cross-entropies in nats."""
        inputs, labels = batch
        return functional.cross_entropy(model(inputs), labels, reduction="sum")

    def evaluate(self, model: nn.Module, batch: Batch) -> tuple[Tensor, Tensor]:
        """See Task: the images' cross-entropies in nats, and their classes, (images,) int64."""
        inputs, labels = batch
        scores = model(inputs)
        losses = functional.cross_entropy(scores, labels, reduction="none")
        return losses, scores.detach().argmax(1)

    def outputs(self, model: nn.Module, batch: Batch) -> tuple[Tensor, ...]:
        """See Task: the scores (images, classes)."""
        return (model(batch[0]),)

    def few(self, batches: Batches) -> Batch:
        """See Task: two images."""
        inputs, labels = next(iter(batches))
        return inputs[:2], labels[:2]

    def inputs(self, model: nn.Module, batch: Batch, images: int) -> Tensor:
        """See Task."""
        return batch[0][:images]

    def check(self, model: nn.Module, splits: Splits) -> Tensor:
        """See Task, and ``load.check_pair``."""
        return check_pair(model, splits)

    def measure(self, model: nn.Module, split: Split, confidence: float) -> Quality:
        """See Task."""
        return measure_quality(model, split)

    def drop(self, original: Any, slim: Any, confidence: float) -> Drop:
        """See Task, and ``paired_drop``."""
        return paired_drop(original, slim, confidence)

    def judge(
        self, original: Any, slim: nn.Module, split: Split, confidence: float, limit_points: float,
        call: CallBatch = call_plainly,
    ) -> Drop:  # fmt: skip
        """See Task, and ``judge_drop``: it stops where the limit is broken for certain."""
        return judge_drop(original, slim, split, confidence, limit_points, call)

    def require_worth(self, measured: Any, split: Split) -> None:
        """See Task: the network must be better than chance."""
        require_better_than_chance(measured, split)


class Agreement(Classification):
    """Classification where the labels are the original network's own answers.

    What it loses of the agreement with itself, it cannot have lost more of accuracy.
    """

    @property
    def quantity(self) -> str:
        """See Task."""
        return "agreement"

    def drop(self, original: Any, slim: Any, confidence: float) -> Drop:
        """See Task, and ``paired_drop``."""
        return replace(super().drop(original, slim, confidence), quantity=self.quantity)

    def judge(
        self, original: Any, slim: nn.Module, split: Split, confidence: float, limit_points: float,
        call: CallBatch = call_plainly,
    ) -> Drop:  # fmt: skip
        """See Task, and ``judge_drop``."""
        found = super().judge(original, slim, split, confidence, limit_points, call)
        return replace(found, quantity=self.quantity)

    def require_worth(self, measured: Any, split: Split) -> None:
        """See Task: a network always agrees with itself."""


CLASSIFICATION = Classification(mean_cross_entropy, top_1_accuracy)
AGREEMENT = Agreement(mean_cross_entropy, top_1_accuracy)
