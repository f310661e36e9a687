"""The images that a search runs: for each purpose no more in memory than it needs."""

from __future__ import annotations

import pytest
import torch

from slimnet.execution import Layout
from slimnet.options import MemoryOptions, Options
from slimnet.search.images import REFIT_IMAGES, REFIT_MACS, _affordable, images_used, lay_out_sets
from slimnet.tasks.classification import CLASSIFICATION


@pytest.mark.parametrize("epochs", [0, 1])
def test_training_images_are_in_memory_only_where_something_is_trained(trained, epochs):
    model, splits = trained
    options = Options(oracle_images=20, finetune_epochs=epochs)
    sets = lay_out_sets(model, splits.calibration, options, None, CLASSIFICATION)
    assert sets.training is (sets.inverse_grams if epochs else sets.oracle)
    assert sets.oracle.images <= 20 < sets.inverse_grams.images


@pytest.mark.parametrize("step", [None, 1])
def test_no_repair_sees_the_images_of_the_distances_in_rounds(trained, step):
    model, splits = trained
    options = Options(oracle_images=20, step=step)
    sets = lay_out_sets(model, splits.calibration, options, None, CLASSIFICATION)
    seen, held_out = (
        {inputs.numpy().tobytes() for batch, _ in split.batches for inputs in batch}
        for split in (sets.inverse_grams, sets.distances)
    )
    assert seen.isdisjoint(held_out) == (step is None)


@pytest.mark.parametrize(("repair", "epochs"), [(True, 0), (False, 0), (False, 1), (True, 1)])
def test_only_what_is_repaired_or_trained_uses_more_images_than_the_oracle(trained, repair, epochs):
    options = Options(oracle_images=100, repair=repair, finetune_epochs=epochs)
    used = images_used(trained[0], torch.rand(2, 1, 8, 8), 9000, options)
    grams = 9000 if epochs else 4096 if repair else 100
    assert used == (100, grams, *((4096, 256) if repair else (100, 100)), 100)


@pytest.mark.parametrize(
    ("macs", "images"), [(0, 4096), (2**20, 4096), (2**30, 2048), (2**41, 256)]
)
def test_layers_are_refitted_on_more_images_where_that_takes_little(macs, images):
    assert _affordable(REFIT_MACS, macs, REFIT_IMAGES) == images


def test_fine_tuning_learns_from_images_that_do_not_fit_in_memory(trained, monkeypatch):
    model, splits = trained
    third = splits.calibration.batches[0][0][0].nbytes * (splits.calibration.images // 3)
    monkeypatch.setattr(MemoryOptions, "memory_bytes", third)
    options = Options(finetune_epochs=1)
    sets = lay_out_sets(model, splits.calibration, options, Layout(), CLASSIFICATION)
    assert sets.inverse_grams.images <= splits.calibration.images // 3
    learning = splits.calibration.images - sets.distances.images
    assert sets.training.images == learning > sets.inverse_grams.images
