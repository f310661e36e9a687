"""What several tests of the search use."""

from __future__ import annotations

from importlib import import_module

import pytest

from slimnet.groups.find import find_groups
from slimnet.records.measured import Drop
from slimnet.search.recovery import Recovery

FITS = Drop(100, 99, 1, 1, 1, 0.5, 100)
BREAKS = Drop(100, 50, 50, 50, 50, 0.5, 100)


@pytest.fixture
def found(trained):
    """The trained network, its splits and its groups."""
    model, splits = trained
    return model, splits, find_groups(model, splits.calibration.batches[0][0][:2])[0]


@pytest.fixture
def images_seen():
    """Returns what a function gives, and how many images a layer computes meanwhile.

    A replay calls layers as well whose outputs it has, so that a hook would count too many.
    """

    def count(layer, run):
        seen, kind = [], type(layer)

        class Counted(kind):
            def forward(self, x):
                seen.append(len(x))
                return super().forward(x)

        layer.__class__ = Counted
        try:
            return run(), sum(seen)
        finally:
            layer.__class__ = kind

    return count


@pytest.fixture
def only_fits(monkeypatch):
    """Returns a function that says, by state, which ones the search finds within the budget."""

    def script(fits):
        class Scripted(Recovery):
            def __init__(self, teacher, quick_teacher, calibration, options, measure_drop):
                drop = lambda state: FITS if fits(state) else BREAKS  # noqa: E731
                super().__init__(teacher, quick_teacher, calibration, options, drop)

        monkeypatch.setattr(import_module("slimnet.search.search"), "Recovery", Scripted)

    return script
