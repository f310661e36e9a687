"""The test of the budget, against slow obvious computations, and its order."""

import bisect
import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy import optimize, stats

from slimnet.errors import InputError
from slimnet.records.measured import ConfirmationTest, Drop
from slimnet.tasks.classification import AGREEMENT, CLASSIFICATION
from slimnet.tasks.confirmation import (
    batch_p_value,
    confirm_in_order,
    confirmable_points,
    p_value,
    paired_p_value,
)
from slimnet.tasks.drop import BatchScores, Quality, paired_drop, score_statistic
from slimnet.tasks.task import Task


def slow_statistic(lost, won, images, margin):
    """Tango's: the excess over its standard deviation at the most likely rates with this margin."""

    def improbability(rate):
        rates = [rate + margin, rate, 1 - margin - 2 * rate]
        return -stats.multinomial.logpmf([lost, won, images - lost - won], images, rates)

    limits = (0, (1 - margin) / 2)
    found = optimize.minimize_scalar(improbability, bounds=limits, options={"xatol": 1e-12})
    variance = images * (2 * found.x + margin - margin**2)
    return (lost - won - images * margin) / math.sqrt(variance)


IMAGES = 30
OUTCOMES = [(lost, won) for lost in range(IMAGES + 1) for won in range(IMAGES + 1 - lost)]


@pytest.mark.parametrize("max_drop", [3.0, 10.0, 40.0])
def test_the_exact_p_value_is_that_of_counting_all_outcomes(max_drop):
    margin = max_drop / 100
    statistics = np.array([slow_statistic(*one, IMAGES, margin) for one in OUTCOMES])
    counts = np.array([(lost, won, IMAGES - lost - won) for lost, won in OUTCOMES])
    chances = np.array([
        stats.multinomial.pmf(counts, IMAGES, [rate + margin, rate, 1 - margin - 2 * rate])
        for rate in np.linspace(0, (1 - margin) / 2, 600)
    ])  # fmt: skip
    for lost, won in ((0, 0), (0, 3), (1, 0), (1, 1), (2, 5), (9, 2), (9, 18), (30, 0)):
        as_low = statistics <= statistics[OUTCOMES.index((lost, won))] + 1e-6
        expected = chances[:, as_low].sum(1).max()
        assert p_value(lost, won, IMAGES, max_drop) == pytest.approx(expected, rel=2e-3)


@pytest.mark.parametrize(("images", "max_drop"), [(60, 5.0), (100, 5.0), (150, 2.0), (150, 10.0)])
def test_the_exact_test_errs_at_most_as_often_as_it_says(images, max_drop):
    """Of networks on the edge of the budget it confirms at most 5 %, and nearly so many of some."""
    margin = max_drop / 100
    grid = np.array([(x, y) for x in range(images + 1) for y in range(images + 1 - x)])
    order = np.argsort(score_statistic(grid[:, 0], grid[:, 1], images, margin))
    # the p-value rises with the statistic
    confirmed = bisect.bisect_right(
        order, 0.05, key=lambda index: p_value(*map(int, grid[index]), images, max_drop)
    )
    low = grid[order[:confirmed]]
    counts = np.column_stack([low, images - low.sum(1)])
    chances = [
        stats.multinomial.pmf(counts, images, [rate + margin, rate, 1 - margin - 2 * rate]).sum()
        for rate in (0, 1e-4, 0.001, 0.003, 0.01, 0.02, 0.0345, 0.06, 0.1, 0.2, 0.4)
    ]
    assert max(chances) <= 0.05 + 1e-6
    assert max(chances) > 0.03


def quality(*right):
    correct = torch.tensor(right)
    return Quality(correct, torch.zeros(len(correct), dtype=torch.int64), 0.0)


def pair(lost, won, images):
    """Two networks of which only the first, or only the second, gets so many images right."""
    one = [True] * lost + [False] * won + [True] * (images - lost - won)
    other = [False] * lost + [True] * won + [True] * (images - lost - won)
    return quality(*one), quality(*other)


@pytest.mark.parametrize("images", [400, 1001])
@pytest.mark.parametrize("confidence", [0.8, 0.95, 0.999])
def test_with_many_images_it_is_the_test_that_the_bound_belongs_to(images, confidence):
    outcomes = set()
    for lost in range(0, images // 10, 3):
        for won in (0, 1, 6):
            both = pair(lost, won, images)
            within = paired_drop(*both, confidence).upper_points < 5
            assert (paired_p_value(*both, 5.0) <= 1 - confidence) == within
            outcomes.add(within)
    assert outcomes == {True, False}


def test_the_p_value_is_of_the_images_that_differ():
    for images in (100, 500):
        for lost, won in ((0, 0), (3, 1), (9, 4)):
            found = paired_p_value(*pair(lost, won, images), 5.0)
            assert found == p_value(lost, won, images, 5.0)
            for task in (CLASSIFICATION, AGREEMENT):
                assert task.p_value(*pair(lost, won, images), 5.0) == found
    assert "Tango" in CLASSIFICATION.test_name


@pytest.mark.parametrize("images", [50, 300, 400, 5000])
def test_more_lost_or_less_won_is_less_sure(images):
    lost, won = images // 25 + 2, 2
    found = p_value(lost, won, images, 5.0)
    assert 0 < found < 1
    assert p_value(lost + 1, won, images, 5.0) > found
    assert p_value(lost, won + 1, images, 5.0) < found
    assert p_value(lost, won, images, 6.0) < found


def test_exact_and_normal_meet_where_one_takes_over():
    for lost in (8, 16, 24):
        exact, normal = (p_value(lost, 4, images, 5.0) for images in (399, 400))
        assert exact == pytest.approx(normal, rel=0.2, abs=1e-3)


@pytest.mark.parametrize("images", [60, 500])
def test_a_budget_of_nothing_is_confirmed_only_by_a_gain(images):
    """At 0 points a network without a difference is as likely as not to lose something."""
    assert p_value(0, 0, images, 0.0) >= 0.5
    assert p_value(1, 1, images, 0.0) >= 0.5
    assert p_value(0, 20, images, 0.0) < 0.01
    assert p_value(images, 0, images, 100.0) >= 0.5


SCORES = [(90.0, 88.1), (92.0, 89.2), (88.0, 87.3), (94.0, 90.4), (91.0, 87.6), (90.5, 89.0)]


def batch_scores(parts, percent=None, images=400):
    whole = sum(parts) / len(parts) if percent is None else percent
    return BatchScores(whole, tuple(parts), images, "mean IoU")


@pytest.mark.parametrize("max_drop", [0.5, 2.0, 2.5, 3.0, 5.0])
def test_the_p_value_of_batches_is_that_of_a_t_test(max_drop):
    before, after = (batch_scores(parts, images=401) for parts in zip(*SCORES, strict=True))
    drops = [one - other for one, other in SCORES]
    expected = stats.ttest_1samp(drops, max_drop, alternative="less").pvalue
    assert batch_p_value(before, after, max_drop) == pytest.approx(expected, rel=1e-9)
    task = Task(lambda model, batch: None, lambda model, batches: 0.0)
    assert task.p_value(before, after, max_drop) == batch_p_value(before, after, max_drop)
    assert "approximate" in task.test_name


def test_batches_that_all_agree_leave_open_what_so_many_images_do():
    same = batch_scores([90.0, 90.0, 90.0])
    assert batch_p_value(same, same, 5.0) == pytest.approx(0.95**400)
    few = replace(same, images=40)
    assert batch_p_value(few, few, 5.0) == pytest.approx(0.95**40)
    no_share = replace(same, percent=90.123)
    assert batch_p_value(no_share, no_share, 5.0) == 0
    worse = replace(no_share, percent=85.0)
    assert batch_p_value(no_share, worse, 5.0) == 1


def test_scores_of_batches_that_are_no_numbers_confirm_nothing():
    before = batch_scores([90.0, 91.0, 92.0])
    assert batch_p_value(before, replace(before, percent=math.nan), 5.0) == 1
    lost = replace(before, percent=60.0, parts=(90.0, math.nan, 92.0))
    assert batch_p_value(before, lost, 5.0) > 0.05
    with pytest.raises(InputError, match=r"2 batches or more; got 1"):
        batch_p_value(batch_scores([90.0, math.nan], 90.0), batch_scores([90.0, 90.0]), 5.0)


@pytest.mark.parametrize(
    ("images", "low", "high"),
    [(423, 1.5, 1.8), (846, 2.4, 2.6), (1700, 3.0, 3.2), (10_000, 4.0, 4.2)],
)
def test_more_images_confirm_larger_drops(images, low, high):
    assert low <= confirmable_points(images, 5.0, 0.95) <= high
    assert confirmable_points(2 * images, 5.0, 0.95) > confirmable_points(images, 5.0, 0.95)
    assert confirmable_points(images, 6.0, 0.95) > confirmable_points(images, 5.0, 0.95)
    assert confirmable_points(images, 5.0, 0.99) < confirmable_points(images, 5.0, 0.95)


def test_a_network_that_loses_so_much_is_mostly_confirmed():
    """In 2,000 draws of as many images that differ as the estimate supposes."""
    points, generator = confirmable_points(846, 5.0, 0.95), np.random.default_rng(0)
    rates = [2 * points / 100, points / 100, 1 - 3 * points / 100]
    drawn = generator.multinomial(846, rates, 2000)
    confirmed = [p_value(int(lost), int(won), 846, 5.0) <= 0.05 for lost, won, _ in drawn]
    assert 0.72 < np.mean(confirmed) < 0.88


def outcome(state, confirmed):
    drop = Drop(90.0, 89.0, 1.0, 0.5, 1.5, 0.95, 100)
    return ConfirmationTest(state, "slim.onnx", 10.0, 1.0, drop, 0.01, confirmed)


@pytest.mark.parametrize(
    ("passing", "confirmed", "tested"),
    [("", "", "a"), ("ab", "ab", "abc"), ("acde", "a", "ab"), ("bcde", "", "a"), ("abcde",) * 3],
)
def test_tests_stop_at_the_first_that_fails(passing, confirmed, tested):
    """A later state must not be tried: that it is confirmed by chance would no longer be rare."""
    read = []

    def states():
        for state in "abcde":
            read.append(state)
            yield state

    found, outcomes = confirm_in_order(states(), lambda state: outcome(state, state in passing))
    assert "".join(found) == confirmed
    assert "".join(one.step for one in outcomes) == tested
    assert "".join(read) == tested
    assert [one.confirmed for one in outcomes] == [state in passing for state in tested]


def test_nothing_to_test_confirms_nothing():
    assert confirm_in_order([], lambda state: outcome(state, True)) == ([], [])
