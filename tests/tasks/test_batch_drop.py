"""The bound on the drop of a user's own score, from how batches differ."""

import math

import pytest
import torch

from slimnet.errors import InputError
from slimnet.records.data import Split
from slimnet.tasks.drop import BatchScores, batch_drop, require_score


def scores(whole, *parts):
    return BatchScores(whole, parts, 400, "mean IoU")


def test_bounds_are_centred_on_the_drop_of_the_whole_split():
    drop = batch_drop(scores(90, 90, 92, 88, 94), scores(86, 89, 86, 86, 87), 0.95)
    assert drop.points == 4
    spread = math.sqrt(((1 - 4) ** 2 + (6 - 4) ** 2 + (2 - 4) ** 2 + (7 - 4) ** 2) / 3)
    margin = 2.3534 * spread / 2
    assert drop.upper_points == pytest.approx(4 + margin, abs=1e-3)
    assert drop.lower_points == pytest.approx(4 - margin, abs=1e-3)
    assert (drop.quantity, drop.images, drop.slim_percent) == ("mean IoU", 400, 86)
    assert "4 batches" in drop.bounds


def test_batches_that_all_agree_leave_open_what_so_many_images_do():
    drop = batch_drop(scores(90, 90, 90), scores(90, 90, 90), 0.95)
    # the rule of three: no difference in 400 images means at most about 3 in 400
    assert drop.upper_points == pytest.approx(100 * 3 / 400, rel=0.01)
    assert drop.lower_points == -drop.upper_points


def test_scores_that_are_no_shares_of_the_images_have_the_spread_of_their_batches():
    drop = batch_drop(scores(90.123, 90, 90), scores(90.1, 90, 90), 0.95)
    assert drop.upper_points == pytest.approx(0.023)


def test_plain_estimate_needs_no_batches():
    drop = batch_drop(scores(90), scores(86.5), 0.5)
    assert (drop.lower_points, drop.points, drop.upper_points) == (3.5, 3.5, 3.5)
    assert "plain estimate" in drop.bounds


def test_a_score_of_the_slim_network_that_is_no_number_counts_as_zero():
    drop = batch_drop(scores(90, 90, 90), scores(math.nan, math.nan, 90), 0.95)
    assert (drop.points, drop.slim_percent) == (90, 0)
    assert drop.upper_points > 90


def test_batches_without_a_score_of_the_original_are_left_out():
    drop = batch_drop(scores(90, 90, math.nan, 92), scores(88, 88, math.nan, 89), 0.95)
    assert drop.bounds.startswith("Student's t over the drops of 2 batches")
    with pytest.raises(InputError, match=r"2 batches or more; got 1: .*--batch-size"):
        batch_drop(scores(90, 90, math.nan), scores(90, 90, 1), 0.95)


def test_the_upper_bound_holds_as_often_as_it_says():
    """2,000 slim networks whose batches lose 2 points on average; 5 % may be judged too well."""
    generator = torch.Generator().manual_seed(0)
    held = 0
    for _ in range(2000):
        lost = 2 + 3 * torch.randn(6, generator=generator, dtype=torch.float64)
        slim = scores(90 - float(lost.mean()), *(90 - lost).tolist())
        held += batch_drop(scores(90, *[90.0] * 6), slim, 0.95).upper_points >= 2
    assert 0.94 < held / 2000 < 0.96


@pytest.mark.parametrize("score", [math.nan, math.inf, -3, 101, 0.83, 0])
def test_a_score_in_other_units_is_refused(score):
    with pytest.raises(InputError, match=r"in points, 0 to 100") as caught:
        require_score(scores(score), Split("selection", 40, []))
    assert ("multiply a share by 100" in str(caught.value)) == (score == 0.83)
    require_score(scores(83), Split("selection", 40, []))
