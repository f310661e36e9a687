"""The drop between two networks on one split, with its bounds.

It is counted image by image where each image is right or wrong, else score by score over batches.
"""

import math
from dataclasses import dataclass, field
from functools import partial
from statistics import NormalDist, stdev
from typing import Any

import numpy as np
import torch
from scipy.special import stdtrit
from torch import Tensor, nn
from torch.nn import functional

from slimnet.data import class_scores, labels_of
from slimnet.errors import InputError
from slimnet.load import inference
from slimnet.records import Drop, Split
from slimnet.tasks.calls import CallBatch, call_plainly

CHANCE_CONFIDENCE = 0.99  # one network in a hundred that only guesses may pass
BISECTIONS = 60  # halve the interval to less than what float64 can tell apart
MIN_SCORE = 1.0  # points; below it a score is most often a share that was not multiplied by 100


@dataclass(frozen=True)
class Quality:
    """Whether each image is right (images,) bool, its class (images,) int64, and the mean loss.

    The loss is the cross-entropy in nats. ``labels`` (images,) int64 are the true classes.
    """

    correct: Tensor
    predictions: Tensor
    loss: float
    labels: Tensor = field(default_factory=partial(torch.empty, 0, dtype=torch.int64))

    @property
    def percent(self) -> float:
        """Top-1 accuracy in percent."""
        return 100 * float(self.correct.double().mean())


def measure_quality(model: nn.Module, split: Split) -> Quality:
    """Measure accuracy and loss on a split; the model is not changed.

    Raises:
        InputError: the loss is not a finite number.
    """
    predictions, correct, known, total = [], [], [], 0.0
    with inference(model):
        for inputs, labels in split.batches:
            logits = class_scores(model(inputs))
            total += float(functional.cross_entropy(logits, labels, reduction="sum"))
            predictions.append(logits.argmax(1))
            correct.append(predictions[-1] == labels)
            known.append(labels)
    require_finite_loss(total, split.name)
    mean_loss = total / split.images
    return Quality(torch.cat(correct), torch.cat(predictions), mean_loss, torch.cat(known))


def require_finite_loss(loss: float, split: str) -> None:
    """Refuse a loss that is infinite or NaN, on the split of this name.

    Raises:
        InputError: it is.
    """
    if not math.isfinite(loss):
        raise InputError(
            f"the loss on the {split} split is {loss}; check the weights and the "
            "preprocessing (--scale, --mean, --std)"
        )


def require_better_than_chance(quality: Quality, split: Split) -> None:
    """Refuse a network that only guesses on this data. Most often the preprocessing is wrong.

    Chance is the agreement of independent predictions with the same frequencies, as in Cohen's
    kappa: a constant answer is no better, however rare the other classes are. The test is
    one-sided at 99 %.

    Raises:
        InputError: the accuracy is not above chance.
    """
    labels = labels_of(split.batches)
    classes = int(max(labels.max(), quality.predictions.max())) + 1
    shares = [torch.bincount(x, minlength=classes) / len(x) for x in (labels, quality.predictions)]
    chance = float((shares[0] * shares[1]).sum())
    accuracy = quality.percent / 100
    spread = math.sqrt(max(chance * (1 - chance), 0.0) / len(labels))
    if accuracy <= chance + NormalDist().inv_cdf(CHANCE_CONFIDENCE) * spread:
        raise InputError(
            f"the network is at chance on this data: {quality.percent:.1f} % of {split.images} "
            f"answers right, where guesses that name each class as often get {100 * chance:.1f} %; "
            "most often the preprocessing is wrong (see --scale, --mean, --std, --channels, "
            "--size), else the order of the classes, or it was trained on other data"
        )


def paired_drop(original: Quality, slim: Quality, confidence: float) -> Drop:
    """Return the drop of accuracy from original to slim, on the same images, with its bounds.

    The bounds are Tango's score limits for a difference of paired proportions (Statistics in
    Medicine 17, 1998), each one-sided at ``confidence``; at 0.5 they are the plain estimate.
    """
    return _drop(original.correct, slim.correct, confidence)


def evaluate_paired_drop(
    original: Quality,
    slim: nn.Module,
    split: Split,
    confidence: float,
    limit_points: float,
    call: CallBatch = call_plainly,
) -> Drop:
    """Return the drop on a split; neither network is changed. See ``mean_loss`` for ``call``.

    It stops once the bound would be above the limit even with all remaining images right. The drop
    is then that of the images seen, and its bound is above the limit too. An image whose scores are
    not finite counts as wrong.
    """
    correct = torch.empty(0, dtype=torch.bool)
    z = NormalDist().inv_cdf(confidence)
    with inference(slim):
        for number, (inputs, labels) in enumerate(split.batches):
            logits = class_scores(call(number, partial(slim, inputs)))
            right = (logits.argmax(1) == labels) & logits.isfinite().all(1)
            correct = torch.cat([correct, right])
            seen, left = original.correct[: len(correct)], original.correct[len(correct) :]
            lost, won = int((seen & ~correct).sum()), int((~seen & correct).sum())
            best = score_limit(lost, won + int((~left).sum()), len(original.correct), z)
            if 100 * best > limit_points:
                break
    return _drop(original.correct[: len(correct)], correct, confidence)


def _drop(original: Tensor, slim: Tensor, confidence: float) -> Drop:
    """Return the drop, from whether the same images are right, (images,) bool."""
    images = len(original)
    lost, won = int((original & ~slim).sum()), int((~original & slim).sum())
    z = NormalDist().inv_cdf(confidence)
    return Drop(
        original_percent=100 * float(original.double().mean()),
        slim_percent=100 * float(slim.double().mean()),
        points=100 * (lost - won) / images,
        lower_points=-100 * score_limit(won, lost, images, z),
        upper_points=100 * score_limit(lost, won, images, z),
        confidence=confidence,
        images=images,
    )


def score_limit(lost: int, won: int, images: int, z: float) -> float:
    """Return the upper limit of (lost - won) / images, by bisection on Tango's statistic."""
    low, high = (lost - won) / images, 1.0
    if z <= 0:
        return low
    for _ in range(BISECTIONS):
        middle = (low + high) / 2
        if float(score_statistic(lost, won, images, middle)) > -z:
            low = middle
        else:
            high = middle
    return high


def score_statistic(lost: Any, won: Any, images: int, difference: float) -> Any:
    """Return Tango's statistic for the hypothesis that the true difference is ``difference``.

    ``lost`` and ``won`` are counts of images, or arrays of them. It is infinite where the
    difference differs and has no variance.
    """
    lost, won = np.asarray(lost, dtype=float), np.asarray(won, dtype=float)
    a = 2 * images
    b = -lost - won + (2 * images - lost + won) * difference
    c = -won * difference * (1 - difference)
    q = (np.sqrt(np.maximum(b * b - 4 * a * c, 0.0)) - b) / (2 * a)
    variance = images * (2 * q + difference * (1 - difference))
    excess = lost - won - images * difference
    without = np.where(excess == 0, 0.0, np.copysign(math.inf, excess))
    spread = np.sqrt(np.where(variance > 0, variance, 1.0))
    return np.where(variance > 0, excess / spread, without)


@dataclass(frozen=True)
class BatchScores:
    """A score in points on a whole split and, where bounds are wanted, on each batch alone."""

    percent: float
    parts: tuple[float, ...]
    images: int
    quantity: str


def require_score(measured: BatchScores, split: Split) -> None:
    """Refuse an original network that scores next to nothing, or in other units.

    Raises:
        InputError: it is not above 1 and up to 100 points.
    """
    if not MIN_SCORE < measured.percent <= 100:
        raise InputError(
            f"the task's score is in points, 0 to 100, and above {MIN_SCORE:g} for a network "
            f"worth slimming; got {measured.percent:g} on the {split.name} split: "
            + "multiply a share by 100, or " * (0 < measured.percent <= 1)
            + "check the score, the data and the weights"
        )


def batch_drop(original: BatchScores, slim: BatchScores, confidence: float) -> Drop:
    """Return the drop of the whole split's score from original to slim, with its bounds.

    Each bound is one-sided at ``confidence``: the whole split's drop, plus or minus Student's t
    times the standard error of the mean of the batches' own drops. This takes batches to be drawn
    independently and their drops to be about normal. Batches that all agree by chance have no
    spread. Where the scores are shares of the images, the bound is therefore at least as far as
    that of so many images without a difference. At 0.5 both bounds are the plain estimate. A slim
    network's score that is not finite counts as 0. Batches where the original's is not finite are
    left out of the bounds.

    Raises:
        InputError: fewer than two batches to find bounds from.
    """
    points = original.percent - _or_zero(slim.percent)
    margin, how = 0.0, "none: the plain estimate"
    if confidence > 0.5:
        error, batches = batch_error(original, slim)
        margin = float(stdtrit(batches - 1, confidence)) * error
        if all(counts_images(score) for score in (original, slim)):
            margin = max(margin, 100 * (1 - (1 - confidence) ** (1 / original.images)))
        how = f"Student's t over the drops of {batches} batches, centred on the whole split's drop"
    return Drop(
        original_percent=original.percent,
        slim_percent=_or_zero(slim.percent),
        points=points,
        lower_points=points - margin,
        upper_points=points + margin,
        confidence=confidence,
        images=original.images,
        quantity=original.quantity,
        bounds=how,
    )


def batch_error(original: BatchScores, slim: BatchScores) -> tuple[float, int]:
    """Return the standard error of the mean of the batches' drops in points, and their number.

    Raises:
        InputError: fewer than two batches have a score of the original.
    """
    both = zip(original.parts, slim.parts, strict=True)
    drops = [before - _or_zero(after) for before, after in both if math.isfinite(before)]
    if len(drops) < 2:
        raise InputError(
            f"a bound on the drop needs the score on 2 batches or more; got {len(drops)}: give "
            "more images, a smaller --batch-size, or --confidence 0.5"
        )
    return stdev(drops) / math.sqrt(len(drops)), len(drops)


def counts_images(score: BatchScores) -> bool:
    """Return whether a score may be a share of its images."""
    right = score.percent * score.images / 100
    return math.isfinite(right) and math.isclose(right, round(right), abs_tol=1e-6)


def _or_zero(score: float) -> float:
    return score if math.isfinite(score) else 0.0
