"""Accuracy and loss of a network on a split."""

from __future__ import annotations

import math
from dataclasses import dataclass
from statistics import NormalDist

import torch
from torch import Tensor, nn
from torch.nn import functional

from slimnet.errors import InputError
from slimnet.records import Split


@dataclass(frozen=True)
class Quality:
    """Top-1 verdicts (images,) bool, predictions (images,) int64, and mean cross-entropy (nats)."""

    correct: Tensor
    predictions: Tensor
    loss: float

    @property
    def percent(self) -> float:
        """Top-1 accuracy in percent."""
        return 100 * float(self.correct.double().mean())


def measure_quality(model: nn.Module, split: Split) -> Quality:
    """Measure accuracy and loss on a split; the model is not changed.

    Raises:
        InputError: the loss is not a finite number.
    """
    predictions, correct, total = [], [], 0.0
    with torch.inference_mode():
        for inputs, labels in split.batches:
            logits = model(inputs)
            total += float(functional.cross_entropy(logits, labels, reduction="sum"))
            predictions.append(logits.argmax(1))
            correct.append(predictions[-1] == labels)
    require_finite_loss(total, split.name)
    return Quality(torch.cat(correct), torch.cat(predictions), total / split.images)


def require_finite_loss(loss: float, split: str) -> None:
    """Refuse a loss that is not a number, on the split of this name.

    Raises:
        InputError: it is inf or nan.
    """
    if not math.isfinite(loss):
        raise InputError(
            f"the loss on the {split} split is {loss}; check the weights and the "
            "preprocessing (--scale, --mean, --std)"
        )


def require_better_than_chance(quality: Quality, split: Split) -> None:
    """Refuse a network that knows nothing of this data, which mostly means wrong preprocessing.

    Chance is the agreement of independent predictions with the same frequencies (as in Cohen's
    kappa), so that neither rare classes nor a constant answer can deceive; the test is one-sided
    at 99 %.

    Raises:
        InputError: the accuracy is not above chance.
    """
    labels = torch.cat([labels for _, labels in split.batches])
    classes = int(max(labels.max(), quality.predictions.max())) + 1
    shares = [torch.bincount(x, minlength=classes) / len(x) for x in (labels, quality.predictions)]
    chance = float((shares[0] * shares[1]).sum())
    accuracy = quality.percent / 100
    spread = math.sqrt(max(chance * (1 - chance), 0.0) / len(labels))
    if accuracy <= chance + NormalDist().inv_cdf(0.99) * spread:
        raise InputError(
            f"the network is at chance on this data: {quality.percent:.1f} % of {split.images} "
            f"images right, where guesses that name each class as often get {100 * chance:.1f} %; "
            "most often the preprocessing is wrong (see --scale, --mean, --std, --channels, "
            "--size), else the order of the classes, or it was trained on other data"
        )
