"""The drop of a user's own score, and its bounds from how single batches differ."""

from __future__ import annotations

import math
from dataclasses import dataclass
from statistics import fmean, stdev

from slimnet.errors import InputError
from slimnet.records import Drop, Split

WIDEST = 1e6
LEAST_SCORE = 1.0


@dataclass(frozen=True)
class BatchScores:
    """A score in points on a whole split and, unless nobody asks, on each batch of it alone."""

    percent: float
    parts: tuple[float, ...]
    images: int
    quantity: str


def require_score(measured: BatchScores, split: Split) -> None:
    """Refuse an original network whose score leaves nothing to lose, or is in other units.

    Raises:
        InputError: it is not above 1 and up to 100 points.
    """
    if not LEAST_SCORE < measured.percent <= 100:
        raise InputError(
            f"the task's score is in points, 0 to 100, and above {LEAST_SCORE:g} for a network "
            f"worth slimming; got {measured.percent:g} on the {split.name} split: "
            + "multiply a share by 100, or " * (0 < measured.percent <= 1)
            + "check the score, the data and the weights"
        )


def batch_drop(original: BatchScores, slim: BatchScores, confidence: float) -> Drop:
    """Return the drop of the whole split's score from original to slim, with its bounds.

    Each bound is one-sided at ``confidence``: the whole split's drop, plus or minus Student's t
    times the standard error of the mean of the batches' own drops. Where the scores are shares of
    the images, it is never closer than what so many images without a difference leave open, since
    batches that all agree by chance have no spread. It takes the batches to be drawn independently
    and their drops to be about normal. At 0.5 both are the plain estimate. A slim network's score
    that is not a number counts as 0; batches on which the original's is none are left out of the
    bounds.

    Raises:
        InputError: fewer than two batches to find bounds from.
    """
    points = original.percent - _or_zero(slim.percent)
    margin, how = 0.0, "none: the plain estimate"
    if confidence > 0.5:
        both = zip(original.parts, slim.parts, strict=True)
        drops = [before - _or_zero(after) for before, after in both if math.isfinite(before)]
        if len(drops) < 2:
            raise InputError(
                f"a bound on the drop needs the score on 2 batches or more; got {len(drops)}: give "
                "more images, a smaller --batch-size, or --confidence 0.5"
            )
        error = stdev(drops) / math.sqrt(len(drops))
        margin = student_quantile(confidence, len(drops) - 1) * error
        if all(_counts_images(score) for score in (original, slim)):
            margin = max(margin, 100 * (1 - (1 - confidence) ** (1 / original.images)))
        how = (
            f"Student's t over the drops of {len(drops)} batches (their mean is "
            f"{fmean(drops):.2f} points), centred on the whole split's drop"
        )
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


def _counts_images(score: BatchScores) -> bool:
    right = score.percent * score.images / 100
    return math.isfinite(right) and math.isclose(right, round(right), abs_tol=1e-6)


def _or_zero(score: float) -> float:
    return score if math.isfinite(score) else 0.0


def student_quantile(probability: float, degrees: int) -> float:
    """Return the quantile of Student's t for a probability of 0.5 or more, by bisection."""
    low, high = 0.0, WIDEST
    for _ in range(100):
        middle = (low + high) / 2
        if student_probability(middle, degrees) < probability:
            low = middle
        else:
            high = middle
    return high


def student_probability(t: float, degrees: int) -> float:
    """Return P(T <= t) for t >= 0 (Abramowitz and Stegun 1964, 26.7.3 and 26.7.4)."""
    angle = math.atan(t / math.sqrt(degrees))
    odd = degrees % 2
    term = math.cos(angle) if odd else 1.0
    total = term if degrees > 1 else 0.0
    for k in range(3 if odd else 2, degrees - 1, 2):
        term *= (k - 1) / k * math.cos(angle) ** 2
        total += term
    between = math.sin(angle) * total
    if odd:
        between = 2 / math.pi * (angle + between)
    return (1 + between) / 2
