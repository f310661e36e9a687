"""How much distance each try of a round allows."""

import pytest

from slimnet.search.rounds import MAX_GROWTH, SHARE_OF_BUDGET, Tries, Try


def test_what_used_little_of_the_budget_lets_the_next_try_grow_fast_but_not_without_limit():
    tries = Tries(start=0.0, aim=4.5, allowed=0.02)
    tries.fits(Try(nats=0.02, saved=1.0, points=0.0))
    assert tries.allowed == pytest.approx(0.02 * MAX_GROWTH)
    tries.fits(Try(nats=0.04, saved=2.0, points=1.5))
    # 1.5 points for the last 0.02: twice as much is left
    assert tries.allowed == pytest.approx(0.08)


def test_between_what_fits_and_what_does_not_the_next_try_goes_by_the_points():
    tries = Tries(start=0.0, aim=4.0, allowed=0.02)
    tries.fits(Try(nats=0.1, saved=1.0, points=2.0))
    tries.breaks(Try(nats=0.2, saved=2.0, points=6.0))
    assert tries.allowed == pytest.approx(0.15)
    tries.breaks(Try(nats=0.2, saved=2.0, points=1000.0))
    assert tries.allowed == pytest.approx(0.12)


@pytest.mark.parametrize(("high", "left"), [(None, 0.05), (Try(0.13, 2.0, 6.0), 0.03)])
def test_the_next_round_allows_a_share_of_what_is_left(high, left):
    tries = Tries(start=0.0, aim=4.0, allowed=0.02, high=high)
    tries.fits(Try(nats=0.1, saved=1.0, points=4.0))
    assert tries.allowed_next_round(6.0) == pytest.approx(SHARE_OF_BUDGET * left)
