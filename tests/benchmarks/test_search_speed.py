"""The plain reference loop decides what slimnet's search decides."""

from __future__ import annotations

from itertools import islice

import search_speed
from plain_search import PlainStep, plain_search

from slimnet.groups import find_groups
from slimnet.records import Candidate
from slimnet.search import search
from slimnet.settings import Settings


def test_the_plain_loop_and_the_search_remove_the_same_channels(trained):
    model, splits = trained
    groups, _ = find_groups(model, splits.calibration.batches[0][0][:2])
    batches = splits.calibration.batches
    plain = list(islice(plain_search(model, groups, batches, splits.selection, 6), 6))
    settings = Settings(max_drop=100, confidence=0.5, step=1, repair=False, oracle_k=6)
    ours = search(model, groups, splits, settings)[0].steps
    assert search_speed.agreeing(plain, list(ours), [group.name for group in groups]) == 6


class Told:
    """A step of which only the candidates are asked for."""

    chosen = 0

    def __init__(self, channels, sensitivity):
        self.candidates = (Candidate("any", channels, sensitivity, 8),)


def test_agreement_ends_at_the_first_other_channel():
    plain = [PlainStep((0, 3), 0.1, 0.1, 90, 1), PlainStep((1, 2), 0.2, 0.1, 90, 1)]
    same = [Told({"a": (3,)}, 0.1), Told({"b": (2,)}, 0.2)]
    assert search_speed.agreeing(plain, same, ["a", "b"]) == 2
    assert search_speed.agreeing(plain, [same[0], Told({"b": (1,)}, 0.2)], ["a", "b"]) == 1
