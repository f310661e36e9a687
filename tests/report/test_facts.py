"""Warnings of the report: what qualifies a result must be said, and only then."""

from __future__ import annotations

import dataclasses

import pytest

from slimnet.records import Trajectory
from slimnet.report.facts import score_notes

STUDENT = "Student's t over the batches' drops"


def told(report, points, losses, bounds=STUDENT):
    drop = dataclasses.replace(
        report.selection_drop, points=points, quantity="score", bounds=bounds
    )
    step = report.trajectory.steps[0]
    steps = [dataclasses.replace(step, calibration_loss=loss, taken_back=False) for loss in losses]
    return score_notes(drop, Trajectory(tuple(steps), 0, "", {}))


def test_a_score_that_rises_with_the_loss_is_told(report):
    (note,) = told(report, -4.0, (1.0, 1.2, 2.0))
    assert "rose by 4.00 points while the loss rose too" in note


@pytest.mark.parametrize(
    ("points", "losses", "bounds"),
    [
        (-4.0, (2.0, 1.9), STUDENT),
        (-0.5, (1.0, 2.0), STUDENT),
        (4.0, (1.0, 2.0), STUDENT),
        (-4.0, (1.0,), STUDENT),
        (-4.0, (1.0, 2.0), "Tango's score limits"),
    ],
)
def test_nothing_is_told_where_score_and_loss_agree(report, points, losses, bounds):
    assert told(report, points, losses, bounds) == ()
