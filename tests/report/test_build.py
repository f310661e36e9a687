"""The report's environment, its notes, and the check of the predicted latency."""

from __future__ import annotations

import dataclasses
import getpass
import json
import os
import platform
from pathlib import Path

import pytest
import torch

from slimnet.options import Options
from slimnet.records.measured import Latency, PredictedLatency
from slimnet.records.search import Trajectory
from slimnet.report.build import _version, check_prediction, environment
from slimnet.report.json_report import as_plain
from slimnet.report.notes import drop_notes, prediction_notes, score_notes
from slimnet.report.summary import summary_lines

STUDENT = "Student's t over the batches' drops"


def test_versions_and_processor_are_there():
    found = environment()
    assert found["torch"] == torch.__version__
    assert found["python"] == platform.python_version()
    assert found["slimnet"]
    assert found["torch_pruning"].startswith("1.6")
    assert found["cpu"]
    assert 1 <= found["cores"] <= (os.cpu_count() or 1)
    assert all(found[name] for name in ("torchvision", "onnx", "onnxruntime", "platform"))


def test_nothing_names_a_person_or_machine(monkeypatch):
    monkeypatch.setenv("USER", "ada-lovelace")
    monkeypatch.setenv("LOGNAME", "ada-lovelace")
    text = json.dumps(environment())
    assert getpass.getuser() == "ada-lovelace"
    assert "ada-lovelace" not in text
    assert platform.node() not in text
    assert str(Path.home()) not in text


def test_package_that_is_absent_has_no_version():
    assert _version("no-such-package-at-all") is None


def notes_on_score(report, points, losses, bounds=STUDENT):
    drop = dataclasses.replace(
        report.selection_drop, points=points, quantity="score", bounds=bounds
    )
    step = report.trajectory.steps[0]
    steps = [dataclasses.replace(step, calibration_loss=loss, taken_back=False) for loss in losses]
    return score_notes(drop, Trajectory(tuple(steps), 0, "", {}))


def test_a_score_that_rises_with_the_loss_is_noted(report):
    (note,) = notes_on_score(report, -4.0, (1.0, 1.2, 2.0))
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
def test_no_note_if_score_and_loss_agree(report, points, losses, bounds):
    assert notes_on_score(report, points, losses, bounds) == ()


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({}, []),
        ({"labels": "none"}, ["there were no labels"]),
        ({"max_drop": 1.0}, ["on the test images", "4.20 points, more than the 1 allowed"]),
    ],
)
def test_a_drop_has_the_notes_that_it_needs(report, changes, words):
    drops = drops_of(report) | {"test": dataclasses.replace(report.drop, points=4.2)}
    notes = drop_notes(drops, report.confirmation, Options(**changes))
    assert len(notes) == bool(words)
    assert all(word in notes[0] for word in words)


def drops_of(report):
    drops = {"selection": report.selection_drop, "confirmation": report.confirmation_drop}
    return {name: drop for name, drop in drops.items() if drop is not None}


def test_an_estimate_is_noted_as_one(by_verdict):
    found = by_verdict["estimated"]
    (note,) = drop_notes(drops_of(found), found.confirmation, Options(confidence=0.5))
    assert note.startswith("nothing was confirmed (confidence 0.5)")
    assert "larger than the 4.40 points estimated" in note


@pytest.mark.parametrize(("points", "told"), [(5.9, True), (6.1, False)])
def test_the_next_state_is_noted_where_more_images_might_have_confirmed_it(report, points, told):
    tests = report.confirmation.tests
    failed = dataclasses.replace(
        tests[0], parameters_removed_percent=61.25, p_value=0.207, confirmed=False,
        drop=dataclasses.replace(report.drop, points=points),
    )  # fmt: skip
    longer = dataclasses.replace(report.confirmation, tests=(*tests, failed))
    (note,) = drop_notes(drops_of(report), longer, Options(max_drop=6.0))
    assert "the next state, without 61.2 % of the parameters, drops" in note
    assert f"{points:.2f} points on the confirmation images and could not be" in note
    assert "(p = 0.21)" in note
    assert note.endswith("more images might have allowed it") == told
    alone = dataclasses.replace(longer, tests=(failed,))
    assert drop_notes(drops_of(report), alone, Options(max_drop=6.0)) == ()


def test_earlier_runs_and_an_approximate_test_are_noted(report):
    for runs, words in ((1, "knows of 1 earlier run on"), (2, "knows of 2 earlier runs on")):
        again = dataclasses.replace(report.confirmation, earlier_runs=runs)
        (note,) = drop_notes(drops_of(report), again, Options())
        assert words in note
    loose = dataclasses.replace(report.confirmation, test="a test; approximate: it takes much")
    (note,) = drop_notes(drops_of(report), loose, Options())
    assert note == "the confirmation is a test; approximate: it takes much"


def timed(runtime, batch_size, original_ms, slim_ms):
    samples = (original_ms,), (slim_ms,)
    speedup = original_ms / slim_ms
    return Latency(
        runtime, 1, batch_size, *samples, original_ms, slim_ms, speedup, speedup, speedup, True
    )


LATENCY = [
    timed("onnxruntime-cpu", 1, 9.0, 1.0),
    timed("onnxruntime-cuda", 8, 9.0, 1.0),
    timed("onnxruntime-cpu", 8, 10.2, 6.0),
]


def checked(original_ms, slim_ms, corrections=3):
    predicted = PredictedLatency(original_ms, slim_ms, corrections)
    return check_prediction(predicted, LATENCY, "onnxruntime-cpu", 8)


def test_a_prediction_is_compared_at_its_runtime_and_batch_size():
    check = checked(12.0, 5.0)
    assert (check.runtime, check.batch_size, check.corrections) == ("onnxruntime-cpu", 8, 3)
    assert (check.predicted_original_ms, check.predicted_slim_ms) == (12.0, 5.0)
    assert (check.measured_original_ms, check.measured_slim_ms) == (10.2, 6.0)
    assert check.predicted_speedup == pytest.approx(2.4)
    assert check.measured_speedup == pytest.approx(1.7)
    assert check.off_percent == pytest.approx(100 * (1.7 / 2.4 - 1))


def test_nothing_to_compare():
    assert check_prediction(None, LATENCY, "onnxruntime-cpu", 8) is None
    assert check_prediction(PredictedLatency(1, 1, 0), LATENCY, "onnxruntime-cpu", 4) is None


@pytest.mark.parametrize(
    ("slim_ms", "noted"), [(12 / 2.4, True), (12 / 2.0, False), (12 / 1.5, False), (12.0, True)]
)
def test_a_note_only_when_more_than_20_percent_off(slim_ms, noted):
    assert len(prediction_notes(checked(12.0, slim_ms))) == noted
    assert prediction_notes(None) == ()


@pytest.mark.parametrize(
    ("corrections", "words"),
    [(0, "was never corrected from"), (1, "corrected once from"), (3, "corrected 3 times from")],
)
def test_the_note_says_how_often_the_table_was_corrected(corrections, words):
    (note,) = prediction_notes(checked(12.0, 5.0, corrections))
    assert note.startswith("the predicted speed-up is more than 20 % off: ")
    assert words in note


@pytest.mark.parametrize(
    ("slim_ms", "ending"), [(5.0, "1.70 times (−29 %)."), (8.0, "1.70 times (+13 %).")]
)
def test_the_summary_has_a_line_on_the_prediction(report, slim_ms, ending):
    check = checked(12.0, slim_ms)
    lines = summary_lines(dataclasses.replace(report, prediction=check))
    (line,) = [line for line in lines if "predicted" in line]
    assert line.startswith("The search predicted ")
    assert line.endswith(f"times as fast on onnxruntime-cpu, batch 8; measured: {ending}")
    assert lines.index(line) == len(summary_lines(report)) - 1, "behind the speeds"


def test_the_prediction_is_in_the_json(report):
    content = as_plain(dataclasses.replace(report, prediction=checked(12.0, 5.0)))
    assert content["prediction"]["predicted_slim_ms"] == 5.0
    assert as_plain(report)["prediction"] is None
