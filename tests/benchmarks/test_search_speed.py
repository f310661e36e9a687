"""The plain reference loop and slimnet's search make the same decisions."""

from __future__ import annotations

from itertools import islice

import search_speed
from plain_search import PlainStep, plain_search

from slimnet.groups.find import find_groups
from slimnet.options import Options
from slimnet.records.search import Candidate
from slimnet.search.search import search


def test_the_plain_loop_and_the_search_remove_the_same_channels(trained):
    model, splits = trained
    groups, _ = find_groups(model, splits.calibration.batches[0][0][:2])
    batches = splits.calibration.batches
    plain = list(islice(plain_search(model, groups, batches, splits.selection, 6), 6))
    options = Options(max_drop=100, confidence=0.5, step=1, repair=False, oracle_k=6)
    ours = search(model, groups, splits, options)[0].steps
    assert search_speed.agreeing(plain, list(ours), [group.name for group in groups]) == 6


class FakeStep:
    """A step with candidates only."""

    chosen = (0,)

    def __init__(self, channels, sensitivity):
        self.candidates = (Candidate("any", channels, sensitivity, 8),)


def test_agreement_ends_at_the_first_other_channel():
    plain = [PlainStep((0, 3), 0.1, 0.1, 90, 1), PlainStep((1, 2), 0.2, 0.1, 90, 1)]
    same = [FakeStep({"a": (3,)}, 0.1), FakeStep({"b": (2,)}, 0.2)]
    assert search_speed.agreeing(plain, same, ["a", "b"]) == 2
    assert search_speed.agreeing(plain, [same[0], FakeStep({"b": (1,)}, 0.2)], ["a", "b"]) == 1
