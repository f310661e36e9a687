"""What a journal depends on: dials of the search, not goals, which are judged afterwards."""

from __future__ import annotations

from slimnet.measure import CLASSIFICATION
from slimnet.search.fingerprint import fingerprint
from slimnet.settings import Settings


def test_what_matters_only_later_leaves_the_journal_as_it_is(trained):
    model, splits = trained
    quality = CLASSIFICATION.measure(model, splits.selection, 0.95)

    def found(**dials):
        settings = Settings(**dials)
        return fingerprint(model, (), [splits.calibration], quality, settings, CLASSIFICATION)

    assert found() == found(max_params=5, baseline="old.json", max_regression=9.0)
    assert found() == found(cache=False, int8=True, opset=18)
    assert found() != found(max_drop=4.0)
