"""Goals in words: a miss is never told with two numbers that read the same."""

from __future__ import annotations

import pytest

from slimnet.records import Goal
from slimnet.report.goal_text import goal_sentence


@pytest.mark.parametrize(
    ("wanted", "got", "told"),
    [
        (1.01, 1.0100004, "wanted at most 1.01, got 1.0100004 ms"),
        (1.01, 1.02, "wanted at most 1.01, got 1.02 ms"),
        (1_000_000, 1_000_001, "wanted at most 1,000,000, got 1,000,001 ms"),
        (0.5, 0.4, "wanted at most 0.5, got 0.4 ms"),
        (100, 20, "wanted at most 100, got 20 ms"),
        (5, None, "wanted at most 5, got nothing measured ms"),
    ],
)
def test_a_miss_shows_on_which_side_it_is(wanted, got, told):
    met = got is not None and got <= wanted
    assert goal_sentence(Goal("max_latency_ms", wanted, got, "ms", met)) == told
