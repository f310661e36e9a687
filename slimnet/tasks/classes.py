"""Classes, each for itself: the recall that each one lost, and the mean over all of them.

The mean is the balanced accuracy. Its drop is that of each class, from the same images before and
after, and the mean of these over classes: an image counts as one over its class's images.
"""

import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial
from statistics import NormalDist

import torch
from torch import Tensor, nn

from slimnet.data import class_scores
from slimnet.load import inference
from slimnet.records import ClassDrop, Drop, Split
from slimnet.tasks.calls import CallBatch, call_plainly
from slimnet.tasks.drop import Quality, paired_drop, score_limit

CLASS_CONFIDENCE = 0.95  # that the bounds of all classes hold together
MAX_CLASSES = 10  # in a report: more are not read
BISECTIONS = 40  # of the p-value: finer than any that is printed
MAX_DEVIATIONS = 8.0  # a p-value of 6e-16
METHOD = (
    "approximate, as classes with few images make it: Tango's score limits of each class, combined "
    "for the mean over classes by the method of variance estimates recovery"
)


def class_drops(original: Quality, slim: Quality) -> tuple[ClassDrop, ...]:
    """Return the drops of the classes that lost most, the surest loss first, at most ten.

    The bounds hold for all classes of the images together (Bonferroni), so that of many classes
    none seems to lose by chance alone.
    """
    labels = torch.unique(original.labels).tolist()
    if not labels:
        return ()
    confidence = 1 - (1 - CLASS_CONFIDENCE) / len(labels)
    found = []
    for label in labels:
        own = original.labels == label
        before, after = (replace(one, correct=one.correct[own]) for one in (original, slim))
        lost = int(before.correct.sum()) > int(after.correct.sum())
        if lost or len(labels) <= MAX_CLASSES:
            drop = paired_drop(before, after, confidence)
            found.append(ClassDrop(label, replace(drop, quantity="recall")))
    found.sort(key=lambda one: (-max(0.0, one.drop.lower_points), -one.drop.points))
    return tuple(found[:MAX_CLASSES])


def balanced_drop(original: Quality, slim: Quality, confidence: float) -> Drop:
    """Return the drop of the balanced accuracy on the same images, with its bounds.

    They are approximate: the limits of each class (Tango) are combined as in Zou and Donner
    (Statistics in Medicine 27, 2008). Classes without images do not count. At 0.5 both bounds are
    the plain estimate.
    """
    return _drop(original, _Counts.of(original, slim.correct), confidence)


def balanced_p_value(original: Quality, slim: Quality, max_drop: float) -> float:
    """Return the p-value of "the true drop is above ``max_drop`` points": the bounds, inverted."""
    counts, margin = _Counts.of(original, slim.correct), max_drop / 100
    above = counts.points / 100 >= margin
    low, high = 0.0, MAX_DEVIATIONS
    for _ in range(BISECTIONS):
        middle = (low + high) / 2
        reached = (
            -counts.swapped.limit(middle) <= margin if above else counts.limit(middle) >= margin
        )
        low, high = (low, middle) if reached else (middle, high)
    return NormalDist().cdf(high if above else -high)


def evaluate_balanced_drop(
    original: Quality, slim: nn.Module, split: Split, confidence: float, limit_points: float,
    call: CallBatch = call_plainly,
) -> Drop:  # fmt: skip
    """Return the drop on a split; neither network is changed. See ``mean_loss`` for ``call``.

    It stops once the bound would be above the limit even with all remaining images right; that is
    the drop that it then returns. An image whose scores are not finite counts as wrong.
    """
    best = torch.ones_like(original.correct)
    z, seen = NormalDist().inv_cdf(confidence), 0
    with inference(slim):
        for number, (inputs, labels) in enumerate(split.batches):
            logits = class_scores(call(number, partial(slim, inputs)))
            right = (logits.argmax(1) == labels) & logits.isfinite().all(1)
            best[seen : seen + len(right)] = right
            seen += len(right)
            if 100 * _Counts.of(original, best).limit(z) > limit_points:
                break
    return _drop(original, _Counts.of(original, best), confidence)


def effective_images(labels: Tensor) -> int:
    """Return how many images would measure a plain mean as well as these a mean over classes."""
    images = torch.bincount(labels)
    images = images[images > 0].double()
    return round(float(len(images) ** 2 / (1 / images).sum()))


def largest_share(labels: Tensor) -> float:
    """Return how much of the mean over classes one image makes at most."""
    images = torch.bincount(labels)
    images = images[images > 0]
    return 1 / (len(images) * int(images.min()))


def balanced_percent(correct: Tensor, labels: Tensor) -> float:
    """Return the mean recall over classes in percent, of images that are right or wrong."""
    images = torch.bincount(labels)
    right = torch.bincount(labels[correct], minlength=len(images))
    return 100 * float((right[images > 0].double() / images[images > 0]).mean())


@dataclass(frozen=True)
class _Counts:
    """How many classes have so many images (lost, won, all); right before, or only afterwards."""

    classes: Mapping[tuple[int, int, int], int]

    @classmethod
    def of(cls, original: Quality, slim: Tensor) -> "_Counts":
        """Count the original's images, where ``slim`` (images,) bool is right."""
        labels = original.labels
        images = torch.bincount(labels)
        lost, won = (
            torch.bincount(labels[which], minlength=len(images))
            for which in (original.correct & ~slim, ~original.correct & slim)
        )
        rows = zip(lost.tolist(), won.tolist(), images.tolist(), strict=True)
        return cls(Counter(row for row in rows if row[2]))

    @property
    def points(self) -> float:
        """The drop of the mean over classes, in percentage points."""
        drops = (n * (lost - won) / images for (lost, won, images), n in self.classes.items())
        return 100 * math.fsum(drops) / sum(self.classes.values())

    @property
    def swapped(self) -> "_Counts":
        """The same from the slim network to the original."""
        return _Counts({(won, lost, images): n for (lost, won, images), n in self.classes.items()})

    def limit(self, z: float) -> float:
        """Return the upper limit of the drop, a share."""
        squares = (
            n * (score_limit(lost, won, images, z) - (lost - won) / images) ** 2
            for (lost, won, images), n in self.classes.items()
        )
        return self.points / 100 + math.sqrt(math.fsum(squares)) / sum(self.classes.values())


def _drop(original: Quality, counts: _Counts, confidence: float) -> Drop:
    z, before = (
        NormalDist().inv_cdf(confidence),
        balanced_percent(original.correct, original.labels),
    )
    return Drop(
        original_percent=before,
        slim_percent=before - counts.points,
        points=counts.points,
        lower_points=-100 * counts.swapped.limit(z),
        upper_points=100 * counts.limit(z),
        confidence=confidence,
        images=len(original.correct),
        quantity="balanced accuracy",
        bounds=METHOD if confidence > 0.5 else "none: the plain estimate",
    )
