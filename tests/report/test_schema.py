"""The schema that ships is that of the records, and reports are as it says."""

from __future__ import annotations

import copy
import json
from pathlib import Path

import jsonschema
import pytest

import slimnet.report
from slimnet.report import report_as_dict
from slimnet.report.schema import report_schema

SHIPPED = Path(slimnet.report.__file__).parent / "report.schema.json"


@pytest.fixture
def plain(report):
    return json.loads(json.dumps(report_as_dict(report)))


def test_what_ships_is_the_schema_of_the_records():
    told = "run: python -m slimnet.report.schema > slimnet/report/report.schema.json"
    assert json.loads(SHIPPED.read_text(encoding="utf-8")) == report_schema(), told


def test_a_report_is_valid(plain):
    jsonschema.Draft202012Validator.check_schema(report_schema())
    jsonschema.validate(plain, report_schema(), jsonschema.Draft202012Validator)


def broken_reports(plain):
    for path, value in (
        (("schema_version",), "1"),
        (("test_drop", "points"), "many"),
        (("channels_per_layer", "conv1"), [1]),
        (("channels_per_layer", "conv1"), [1, 2, 3]),
        (("unknown",), 1),
        (("latency",), {}),
        (("masked_slim",), None),
    ):
        changed = copy.deepcopy(plain)
        place = changed
        for key in path[:-1]:
            place = place[key]
        place[path[-1]] = value
        yield changed
    without = copy.deepcopy(plain)
    del without["command"]
    yield without


def test_other_things_are_not(plain):
    for changed in broken_reports(plain):
        with pytest.raises(jsonschema.ValidationError):
            jsonschema.validate(changed, report_schema(), jsonschema.Draft202012Validator)
