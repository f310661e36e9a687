"""Which widths pay, and which width costs as much as which."""

from __future__ import annotations

import pytest

from slimnet.timing.widths import (
    choose_widths,
    narrow_widths,
    next_lower_width,
    width_in_effect,
)


def test_a_staircase_pays_at_its_edges():
    widths = list(range(32, 0, -4))
    times = [-(-w // 8) * 1.0 for w in widths]  # computed in blocks of 8
    assert choose_widths(widths, times) == (8, 16, 24, 32)


@pytest.mark.parametrize("noise", [0.0, 0.03, -0.03])
def test_where_time_does_not_depend_on_the_width_none_is_better_than_another(noise):
    widths = list(range(32, 0, -4))
    times = [1 + noise * (-1) ** number for number in range(len(widths))]
    assert choose_widths(widths, times) == tuple(range(4, 33, 4))


def test_a_slope_pays_everywhere():
    widths = list(range(32, 0, -4))
    assert choose_widths(widths, [float(w) for w in widths]) == tuple(range(4, 33, 4))


@pytest.mark.parametrize(
    ("width", "paying", "lower"),
    [(20, (8, 16, 32), 16), (16, (8, 16, 32), 8), (8, (8, 16), 0), (200, (16, 112, 128), 192),
     (192, (16, 112, 128), 176), (129, (16, 112, 128), 128), (7, (), 6)],
)  # fmt: skip
def test_next_lower_width(width, paying, lower):
    assert next_lower_width(width, paying) == lower


@pytest.mark.parametrize(
    ("width", "effect"), [(1, 8), (8, 8), (9, 16), (17, 32), (33, 48), (48, 48), (0, 0)]
)
def test_a_width_costs_as_much_as_the_next_one_that_pays(width, effect):
    assert width_in_effect(width, (8, 16, 32)) == effect
    assert width_in_effect(width, ()) == width


def test_below_one_block_inputs_count_in_fours():
    # of 16 inputs, 12 cost as many as 15, 8 as 11 and 4 as 7; of 8, 4 cost as many as 7
    assert narrow_widths((4, 16, 32, 48)) == ((4, 8, 16, 32, 48), (16, 32, 48))
    assert narrow_widths((8, 16, 24)) == ((8, 16, 24), (8, 16, 24))
    assert narrow_widths(()) == ((), ())
