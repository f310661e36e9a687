"""Benchmarks are scripts beside one another: put their folder where they find each other."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.append(str(Path(__file__).parents[2] / "benchmarks"))

import paper

from slimnet import measure
from slimnet.groups import find_groups


@pytest.fixture
def subject(trained):
    model, splits = trained
    example = splits.calibration.batches[0][0][:2]
    judges = (splits.selection, splits.test)
    before = {split.name: measure.measure_quality(model, split) for split in judges}
    return paper.Subject(model, splits, example, find_groups(model, example)[0], before)
