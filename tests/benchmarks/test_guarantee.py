"""The benchmark of the guarantee: its simulation holds, and sees a broken rule."""

from __future__ import annotations

from functools import partial

import guarantee
import pytest

IMAGES, DRAWS = 1700, 100


def test_the_new_rule_keeps_its_promise_on_simulated_paths():
    assert guarantee.violations(guarantee.by_the_new_rule, IMAGES, DRAWS, seed=0) <= 5


@pytest.mark.parametrize("broken", ["stops", "own_images"])
def test_the_simulation_sees_a_broken_rule(broken):
    rule = partial(guarantee.by_the_new_rule, **{broken: False})
    assert guarantee.violations(rule, IMAGES, DRAWS, seed=0) > 5


def test_the_table_counts_draws_above_the_budget():
    found = [
        {"network": "lenet5", "rule": "new", "images": 846, "draw": draw, "true_drop_points": drop,
         "conv_weights_removed_percent": 60.0, "macs_ratio": 2.0}
        for draw, drop in enumerate((2.0, 6.0, 5.0, 3.0))
    ]  # fmt: skip
    line = "| lenet5 | 846 | new | 4 | 25.0 % | 0.6 to 80.6 % | 4.00 points | 60.0 % | 2.00 |"
    assert line in guarantee.table(found)


@pytest.mark.parametrize("broken", [0, 3, 150])
def test_the_interval_holds_the_share(broken):
    low, high = guarantee.interval(broken, 150)
    assert 0 <= low <= broken / 150 <= high <= 1
