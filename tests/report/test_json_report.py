"""Records as JSON, the schema that ships, and the hash of all that a run reads."""

from __future__ import annotations

import copy
import dataclasses
import json
import math
import os
from pathlib import Path

import jsonschema
import pytest

import slimnet.report
from slimnet.errors import InputError
from slimnet.load import record_from_json
from slimnet.options import Options
from slimnet.records.commands import Goal, Report
from slimnet.report.json_report import (
    as_plain,
    content_sha256,
    report_json,
    report_schema,
    save_report,
)

SHIPPED = Path(slimnet.report.__file__).parent / "report.schema.json"
OPTIONS = {"arch": "code/arch.py:network", "task": "code/task.py", "calibration_data": "train",
           "test_data": "more.npz", "latency_table": "old/report.json"}  # fmt: skip


@pytest.fixture
def plain(report):
    return json.loads(json.dumps(as_plain(report)))


def test_every_field_is_there_as_plain_json(report):
    content = as_plain(report)
    assert list(content) == [field.name for field in dataclasses.fields(Report)]
    assert json.loads(json.dumps(content, allow_nan=False)) == content
    assert content["schema_version"] == 2
    assert content["original_size"]["macs"] == 1_814_000_000
    assert content["artefacts"]["slim_onnx"]["parity"]["3"]["images"] == 3
    assert content["trajectory"]["steps"][0]["candidates"][0]["channels"] == {"conv1": [0, 3]}
    assert content["latency"][0]["original_samples_ms"] == [1.2345, 1.2345]
    assert content["latency"][0]["measurable"] is True
    assert content["trajectory"]["latency_table"] == {
        "measured_on": "onnxruntime-cpu, threads 1",
        "paying_widths": [8, 16],
        "profiles": [{
            "widths": {"conv1": [3, 16], "head": [16, 10]},
            "milliseconds": {"conv1": 0.3, "": 0.1},
        }],
    }  # fmt: skip


def test_numbers_that_are_not_finite_become_null(report):
    content = as_plain(report)
    assert content["seconds"] == {"search": 12.5, "total": None}
    assert content["trajectory"]["steps"][0]["candidates"][0]["sensitivity"] is None
    infinite = dataclasses.replace(report, settings={"a": (1, math.inf)})
    assert as_plain(infinite)["settings"] == {"a": [1, None]}


def test_whole_numbers_stay_whole(report):
    goals = (Goal("max_params", 5_000_000, 4_900_000, "parameters", True),)
    assert '"wanted": 5000000,' in report_json(dataclasses.replace(report, goals=goals))


def test_paths_become_file_names_and_texts_stay(report):
    content = as_plain(report)
    assert content["artefacts"]["slim_onnx"]["path"] == "slim.onnx"
    assert content["command"] == report.command


def test_file_reads_back(report, tmp_path):
    save_report(report, tmp_path / "report.json")
    text = (tmp_path / "report.json").read_text(encoding="utf-8")
    assert json.loads(text) == as_plain(report)
    assert len(list(tmp_path.iterdir())) == 1
    with pytest.raises(InputError, match="cannot write"):
        save_report(report, tmp_path / "absent" / "report.json")


def test_a_report_reads_back_as_records(report):
    finite = dataclasses.replace(report, seconds={"search": 12.5})
    found = record_from_json(Report, report_json(finite))
    assert as_plain(found) == as_plain(finite)
    assert found.trajectory.steps[0].drop == report.trajectory.steps[0].drop
    assert math.isnan(found.trajectory.steps[0].candidates[0].sensitivity)
    with pytest.raises(ValueError, match="valid number"):  # a second is a finite number
        record_from_json(Report, report_json(report))


def test_the_schema_that_ships_is_that_of_the_records():
    hint = "run: python -m slimnet.report.json_report > slimnet/report/report.schema.json"
    assert json.loads(SHIPPED.read_text(encoding="utf-8")) == report_schema(), hint


def test_a_report_is_valid(plain):
    jsonschema.Draft202012Validator.check_schema(report_schema())
    jsonschema.validate(plain, report_schema(), jsonschema.Draft202012Validator)


def broken_reports(plain):
    for path, value in (
        (("schema_version",), "1"),
        (("confirmation_drop", "points"), "many"),
        (("selection_drop",), None),
        (("verdict",), "probably"),
        (("confirmation", "tests", 0, "confirmed"), 1),
        (("confirmation", "tests", 0, "unknown"), 1),
        (("channels_per_layer", "conv1"), [1]),
        (("channels_per_layer", "conv1"), [1, 2, 3]),
        (("unknown",), 1),
        (("slim_size", "unknown"), 1),
        (("latency",), {}),
        (("masked_slim",), None),
        (("trajectory", "latency_table", "profiles", 0, "widths", "conv1"), [3]),
        (("trajectory", "latency_table", "unknown"), 1),
    ):
        changed = copy.deepcopy(plain)
        place = changed
        for key in path[:-1]:
            place = place[key]
        place[path[-1]] = value
        yield changed
    for name in ("command", "goals"):
        yield {key: value for key, value in plain.items() if key != name}


def test_a_report_of_every_verdict_is_valid_and_reads_back(by_verdict):
    for report in by_verdict.values():
        finite = dataclasses.replace(report, seconds={})
        text = report_json(finite)
        jsonschema.validate(json.loads(text), report_schema(), jsonschema.Draft202012Validator)
        found = record_from_json(Report, text)
        assert found.verdict == report.verdict
        assert found.drop == report.drop
        assert found.confirmation == report.confirmation


def test_a_report_without_layer_times_is_valid(plain):
    plain["trajectory"]["latency_table"] = None
    jsonschema.validate(plain, report_schema(), jsonschema.Draft202012Validator)


def test_other_things_are_not_valid(plain):
    for changed in broken_reports(plain):
        with pytest.raises(jsonschema.ValidationError):
            jsonschema.validate(changed, report_schema(), jsonschema.Draft202012Validator)


@pytest.fixture
def files(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("model.pt", "val/a/1.png", "val/b/2.png", "train/a/1.png", "code/arch.py",
                 "code/task.py", "code/parts/blocks.py", "old/report.json",
                 "more.npz"):  # fmt: skip
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(name)
    return tmp_path


def found(**changes):
    return content_sha256("model.pt", "val", Options(**{**OPTIONS, **changes}))


def test_it_depends_on_content_alone(files):
    before = found()
    assert before is not None
    os.utime(files / "val/a/1.png", (1, 1))
    assert found() == before
    assert content_sha256(files / "model.pt", files / "val", Options(**OPTIONS)) == before


@pytest.mark.parametrize(
    "name", ["model.pt", "val/b/2.png", "train/a/1.png", "code/arch.py", "code/task.py",
             "code/parts/blocks.py", "old/report.json", "more.npz"]
)  # fmt: skip
def test_every_file_counts(files, name):
    before = found()
    (files / name).write_text("another")
    assert found() not in (None, before)


def test_names_and_places_count(files):
    before = found()
    (files / "val/b/2.png").rename(files / "val/a/2.png")
    moved = found()
    assert moved not in (None, before)
    assert found(arch="code/arch.py:other") not in (None, before, moved)
    assert found(calibration_data=None) not in (None, before, moved)


@pytest.mark.parametrize(
    ("model", "data", "changes"),
    [
        (object(), "val", {}),
        ("model.pt", [1, 2], {}),
        ("model.pt", "code/arch.py:images", {}),
        ("model.pt", "nowhere", {}),
        ("model.pt", "val", {"arch": "package.module:network"}),
        ("model.pt", "val", {"allow": ("package.Class",)}),
        ("model.pt", "val", {"trust_pickle": True}),
    ],
)
def test_unknown_content_has_no_hash(files, model, data, changes):
    assert content_sha256(model, data, Options(**changes)) is None
