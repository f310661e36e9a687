import dataclasses
import json

import pytest

from slimnet.errors import InputError
from slimnet.records import Report
from slimnet.report import report_as_dict, save_report


def test_every_field_is_there_as_plain_json(report):
    content = report_as_dict(report)
    assert list(content) == [field.name for field in dataclasses.fields(Report)]
    assert json.loads(json.dumps(content, allow_nan=False)) == content
    assert content["schema_version"] == 1
    assert content["original_size"]["macs"] == 1_814_000_000
    assert content["artefacts"]["slim_onnx"]["parity"]["3"]["images"] == 3
    assert content["trajectory"]["steps"][0]["candidates"][0]["channels"] == {"conv1": [0, 3]}
    assert content["latency"][0]["original_samples_ms"] == [1.2345, 1.2345]
    assert content["latency"][0]["measurable"] is True


def test_numbers_that_are_not_finite_become_null(report):
    content = report_as_dict(report)
    assert content["seconds"] == {"search": 12.5, "total": None}
    assert content["trajectory"]["steps"][0]["candidates"][0]["sensitivity"] is None


def test_paths_become_file_names_and_texts_stay(report):
    content = report_as_dict(report)
    assert content["artefacts"]["slim_onnx"]["path"] == "slim.onnx"
    assert content["command"] == report.command


def test_file_reads_back(report, tmp_path):
    save_report(report, tmp_path / "report.json")
    text = (tmp_path / "report.json").read_text(encoding="utf-8")
    assert json.loads(text) == report_as_dict(report)
    assert len(list(tmp_path.iterdir())) == 1
    with pytest.raises(InputError, match="cannot write"):
        save_report(report, tmp_path / "absent" / "report.json")
