"""Predicted beside measured: the record, the line and the note."""

from __future__ import annotations

import dataclasses

import pytest

from slimnet.records import Latency, PredictedLatency
from slimnet.report import check_prediction, report_as_dict, summary_lines
from slimnet.report.facts import warnings_for
from slimnet.settings import Settings


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


def test_prediction_meets_the_measurement_of_its_runtime_and_batch_size():
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
def test_a_note_only_when_more_than_20_percent_off(report, slim_ms, noted):
    check = checked(12.0, slim_ms)
    drop = report.test_drop
    notes = warnings_for(drop, drop, Settings(), check)
    assert len(notes) == noted
    assert not warnings_for(drop, drop, Settings())


@pytest.mark.parametrize(
    ("corrections", "told"),
    [(0, "was never corrected from"), (1, "corrected once from"), (3, "corrected 3 times from")],
)
def test_the_note_says_how_often_the_table_was_corrected(report, corrections, told):
    check = checked(12.0, 5.0, corrections)
    (note,) = warnings_for(report.test_drop, report.test_drop, Settings(), check)
    assert note.startswith("the prediction of the speed-up is more than 20 % off: ")
    assert told in note


@pytest.mark.parametrize(
    ("slim_ms", "ending"), [(5.0, "1.70 times (−29 %)."), (8.0, "1.70 times (+13 %).")]
)
def test_the_summary_has_a_line_of_it(report, slim_ms, ending):
    check = checked(12.0, slim_ms)
    lines = summary_lines(dataclasses.replace(report, prediction=check))
    (line,) = [line for line in lines if "predicted" in line]
    assert line.startswith("The search predicted ")
    assert line.endswith(f"times as fast on onnxruntime-cpu, batch 8; measured: {ending}")
    assert lines.index(line) == len(summary_lines(report)) - 1, "behind the speeds"


def test_it_is_in_the_json(report):
    content = report_as_dict(dataclasses.replace(report, prediction=checked(12.0, 5.0)))
    assert content["prediction"]["predicted_slim_ms"] == 5.0
    assert report_as_dict(report)["prediction"] is None
