"""Which images a search runs for what: no more in memory than it has use for."""

from __future__ import annotations

import pytest

from slimnet.measure import CLASSIFICATION
from slimnet.search.image_sets import lay_out_sets
from slimnet.settings import Settings


@pytest.mark.parametrize("epochs", [0, 1])
def test_what_is_trained_on_is_kept_only_where_something_is_trained(trained, epochs):
    model, splits = trained
    settings = Settings(oracle_images=20, finetune_epochs=epochs)
    sets = lay_out_sets(model, splits.calibration, settings, None, CLASSIFICATION)
    assert sets.training is (sets.moments if epochs else sets.oracle)
    assert sets.oracle.images <= 20 < sets.moments.images
