"""The confirmation: is the drop within the budget, on images that decided nothing?

States of the search are tested in a fixed order, from safe to aggressive, each at the full level,
until the first that cannot be confirmed. The last one that was confirmed is shipped. The
probability that its true drop is above the budget is at most one minus the confidence, for any
number of states and however they were found (fixed-sequence testing: Angelopoulos, Bates, Candès,
Jordan and Lei 2021, Learn then Test).
"""

import math
from collections.abc import Callable, Iterable
from statistics import NormalDist
from typing import TypeVar

import numpy as np
from scipy.special import gammaln, stdtr, xlogy

from slimnet.records import ConfirmationTest
from slimnet.tasks.drop import BatchScores, Quality, batch_error, counts_images, score_statistic

EXACT_BELOW = 400
"""Images. From there on the normal approximation of Tango's test errs by a tenth of the level at
most; with fewer images it errs more, and an exact test takes less than a second."""

NUISANCE_VALUES = 200
"""Of the rate that the exact test must hold for, on a grid. Half as many gave the same p-values to
three digits on 100 to 300 images."""

DISCORDANT_PER_POINT = 3.0
"""Images that either network alone gets right, for each of the drop. On the paper's networks there
were 2 to 5 at a drop of 5 points."""

POWER = 0.8
"""A network that loses ``confirmable_points`` is confirmed with this probability."""

StateT = TypeVar("StateT")


def paired_p_value(original: Quality, slim: Quality, max_drop: float) -> float:
    """Return the p-value of "the true drop is above ``max_drop`` points", from the same images.

    It is Tango's score test for paired proportions (Statistics in Medicine 17, 1998); with fewer
    than 400 images its exact unconditional form, the largest over all rates of discordant images.
    """
    lost = int((original.correct & ~slim.correct).sum())
    won = int((~original.correct & slim.correct).sum())
    return p_value(lost, won, len(original.correct), max_drop)


def p_value(lost: int, won: int, images: int, max_drop: float) -> float:
    """Return the p-value for so many images that only the original, or only the slim, got right."""
    margin = max_drop / 100
    if images >= EXACT_BELOW:
        statistic = float(score_statistic(lost, won, images, margin))
        return NormalDist().cdf(statistic) if math.isfinite(statistic) else float(statistic > 0)
    return _exact_p_value(lost, won, images, margin)


def _exact_p_value(lost: int, won: int, images: int, margin: float) -> float:
    """Return the probability of a result as low, for the worst rates on the edge of the budget."""
    numbers = np.arange(images + 1)
    all_lost, all_won = (grid.ravel() for grid in np.meshgrid(numbers, numbers, indexing="ij"))
    possible = all_lost + all_won <= images
    all_lost, all_won = all_lost[possible], all_won[possible]
    statistic = score_statistic(all_lost, all_won, images, margin)
    seen = float(score_statistic(lost, won, images, margin))
    as_low = statistic <= seen + 1e-9
    x, y = all_lost[as_low], all_won[as_low]
    rest = images - x - y
    ways = gammaln(images + 1) - gammaln(x + 1) - gammaln(y + 1) - gammaln(rest + 1)
    largest = 0.0
    # squares: the worst rate of images won is small
    for won_rate in (1 - margin) / 2 * np.linspace(0, 1, NUISANCE_VALUES) ** 2:
        lost_rate = won_rate + margin
        stays = max(0.0, 1 - won_rate - lost_rate)
        logs = ways + xlogy(x, lost_rate) + xlogy(y, won_rate) + xlogy(rest, stays)
        largest = max(largest, float(np.exp(logs).sum()))
    return min(1.0, largest)


def batch_p_value(original: BatchScores, slim: BatchScores, max_drop: float) -> float:
    """Return the p-value of "the true drop is above ``max_drop`` points" of a score by batches.

    It is approximate: see ``batch_drop``.

    Raises:
        InputError: fewer than two batches.
    """
    drop, (error, batches) = original.percent - slim.percent, batch_error(original, slim)
    if not math.isfinite(drop):
        return 1.0
    if error > 0:
        found = float(stdtr(batches - 1, (drop - max_drop) / error))
    else:
        found = float(drop >= max_drop)
    if all(counts_images(score) for score in (original, slim)):
        # so many images without any difference would be as likely as this
        found = max(found, (1 - max_drop / 100) ** original.images)
    return found


def confirmable_points(images: int, max_drop: float, confidence: float) -> float:
    """Return the true drop, in points, that so many images confirm with a probability of 0.8.

    An estimate: the spread of the measured drop is that of ``DISCORDANT_PER_POINT`` images.
    """
    spread = math.sqrt(DISCORDANT_PER_POINT / images)
    largest_estimate = _reached(max_drop / 100, NormalDist().inv_cdf(confidence) * spread)
    return 100 * _reached(largest_estimate, NormalDist().inv_cdf(POWER) * spread)


def _reached(limit: float, spread: float) -> float:
    """Return the share x with x + spread * sqrt(x) = limit."""
    root = (math.sqrt(spread**2 + 4 * limit) - spread) / 2
    return root**2


def confirm_in_order(
    states: Iterable[StateT], test: Callable[[StateT], ConfirmationTest]
) -> tuple[list[StateT], list[ConfirmationTest]]:
    """Return the states that are confirmed, and the outcome of each test.

    Nothing is read from ``states`` after the first that is not confirmed. Their order must not
    depend on the images of the tests.
    """
    confirmed: list[StateT] = []
    outcomes: list[ConfirmationTest] = []
    for state in states:
        outcomes.append(test(state))
        if not outcomes[-1].confirmed:
            break
        confirmed.append(state)
    return confirmed, outcomes
