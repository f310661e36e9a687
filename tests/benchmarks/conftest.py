"""Put the folder of the benchmarks on the path, so that its scripts find each other."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.append(str(Path(__file__).parents[2] / "benchmarks"))

import paper

from slimnet import tasks
from slimnet.groups.find import find_groups


@pytest.fixture
def subject(trained):
    model, splits = trained
    example = splits.calibration.batches[0][0][:2]
    evaluated = (splits.selection, splits.test)
    before = {split.name: tasks.measure_quality(model, split) for split in evaluated}
    return paper.Subject(model, splits, example, find_groups(model, example)[0], before)
