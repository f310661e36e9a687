"""The one definition of a drop of accuracy, and its bounds."""

from __future__ import annotations

import math
from functools import partial
from statistics import NormalDist

import torch
from torch import Tensor, nn

from slimnet.measure.forward import CallBatch, call_plainly
from slimnet.measure.quality import Quality
from slimnet.records import Drop, Split


def paired_drop(original: Quality, slim: Quality, confidence: float) -> Drop:
    """Return the drop of accuracy from original to slim, on the same images, with its bounds.

    The bounds are Tango's score limits for a difference of paired proportions (Statistics in
    Medicine 17, 1998), each one-sided at ``confidence``; at 0.5 they are the plain estimate.
    """
    return _drop(original.correct, slim.correct, confidence)


def judge_drop(
    original: Quality,
    slim: nn.Module,
    split: Split,
    confidence: float,
    limit_points: float,
    call: CallBatch = call_plainly,
) -> Drop:
    """Measure the drop on a split, but stop where its bound is above the limit for certain.

    That is when it would be even if the slim network had all images that are left right. The drop
    is then that of the images seen, and its bound is above the limit too. Where its scores are not
    finite numbers the slim network is wrong. Neither is changed. See ``mean_loss`` for ``call``.
    """
    correct = torch.empty(0, dtype=torch.bool)
    z = NormalDist().inv_cdf(confidence)
    with torch.inference_mode():
        for number, (inputs, labels) in enumerate(split.batches):
            logits = call(number, partial(slim, inputs))
            right = (logits.argmax(1) == labels) & logits.isfinite().all(1)
            correct = torch.cat([correct, right])
            seen, left = original.correct[: len(correct)], original.correct[len(correct) :]
            lost, won = int((seen & ~correct).sum()), int((~seen & correct).sum())
            best = _score_limit(lost, won + int((~left).sum()), len(original.correct), z)
            if 100 * best > limit_points:
                break
    return _drop(original.correct[: len(correct)], correct, confidence)


def _drop(original: Tensor, slim: Tensor, confidence: float) -> Drop:
    """Return the drop from verdicts (images,) bool on the same images."""
    images = len(original)
    lost, won = int((original & ~slim).sum()), int((~original & slim).sum())
    z = NormalDist().inv_cdf(confidence)
    return Drop(
        original_percent=100 * float(original.double().mean()),
        slim_percent=100 * float(slim.double().mean()),
        points=100 * (lost - won) / images,
        lower_points=-100 * _score_limit(won, lost, images, z),
        upper_points=100 * _score_limit(lost, won, images, z),
        confidence=confidence,
        images=images,
    )


def _score_limit(lost: int, won: int, images: int, z: float) -> float:
    """Return the upper limit of (lost - won) / images, by bisection on Tango's statistic."""
    low, high = (lost - won) / images, 1.0
    if z <= 0:
        return low
    for _ in range(60):
        middle = (low + high) / 2
        if _score(lost, won, images, middle) > -z:
            low = middle
        else:
            high = middle
    return high


def _score(lost: int, won: int, images: int, difference: float) -> float:
    """Tango's statistic for the hypothesis that the true difference is ``difference``."""
    a = 2 * images
    b = -lost - won + (2 * images - lost + won) * difference
    c = -won * difference * (1 - difference)
    q = (math.sqrt(max(b * b - 4 * a * c, 0.0)) - b) / (2 * a)
    variance = images * (2 * q + difference * (1 - difference))
    if variance <= 0:
        return 0.0 if lost - won == images * difference else -math.inf
    return (lost - won - images * difference) / math.sqrt(variance)
