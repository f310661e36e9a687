"""An earlier report is read with distrust, and refused in one line."""

from __future__ import annotations

import dataclasses
import json

import pytest
import torch
from torch import nn

from slimnet.errors import InputError
from slimnet.records import LoadedModel, Size
from slimnet.report import read_baseline, report_as_dict, require_same_network
from slimnet.report.baseline import baseline_notes
from slimnet.settings import Settings


@pytest.fixture
def told(report):
    return report_as_dict(report)


def read(told, folder, quantity="accuracy", **dials):
    path = folder / "report.json"
    path.write_text(told if isinstance(told, str) else json.dumps(told), encoding="utf-8")
    return read_baseline(Settings(baseline=str(path), **dials), quantity)


def test_an_own_report_reads_back(told, report, tmp_path):
    found = read(told, tmp_path)
    assert (found.slim_size, found.original_size) == (report.slim_size, report.original_size)
    assert (found.drop_points, found.slim_bytes, found.speedup_low) == (4.1, 950, 2.4)
    assert read(told, tmp_path, latency_batch=(32,)).speedup_low == 0.8
    assert read_baseline(Settings(), "accuracy") is None
    with pytest.raises(InputError, match=r"its threads were 1, and this run's are 4"):
        read(told, tmp_path, threads=4)


@pytest.mark.parametrize(
    ("path", "value", "why"),
    [
        (["schema_version"], 2, "it is of form 2, not 1"),
        (["test_drop", "points"], "much", "its points is no number"),
        (["test_drop", "points"], None, "its points is no number"),
        (["original_size", "macs"], float("inf"), "its macs is no number"),
        (["slim_size", "parameters"], True, "its parameters is no number"),
        (["artefacts"], [], "list indices"),
        (["latency"], [], "it holds no speed-up on onnxruntime-cpu at batch 1"),
        (["environment"], None, "'NoneType'"),
    ],
)
def test_a_damaged_report_is_refused(path, value, why, told, tmp_path):
    place = told
    for name in path[:-1]:
        place = place[name]
    place[path[-1]] = value
    with pytest.raises(InputError, match=r"report\.json of an earlier run") as caught:
        read(told, tmp_path)
    assert why in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "text", ["", "[]", "5", "null", "{}", '{"schema_version": 1}', "[" * 100_000, "\x00"]
)
def test_what_is_no_report_is_refused(text, tmp_path):
    with pytest.raises(InputError, match="cannot be read as one"):
        read(text, tmp_path)


def test_no_file_and_a_folder_are_refused(tmp_path):
    for path in (tmp_path / "absent.json", tmp_path):
        with pytest.raises(InputError, match="name that file"):
            read_baseline(Settings(baseline=str(path)), "accuracy")


def test_a_baseline_of_another_score_is_refused(told, tmp_path):
    with pytest.raises(InputError, match="tells of the accuracy, this run of the agreement"):
        read(told, tmp_path, quantity="agreement")


def test_a_renamed_model_and_other_test_images_are_told(told, report, tmp_path):
    told["source"], told["source_sha256"] = "model_v2.pt", "another"
    told["test_drop"]["images"] += 1
    told["environment"] = {"cpu": report.environment.get("cpu")}
    notes = baseline_notes(report, read(told, tmp_path))
    assert any("was another file: new weights?" in note for note in notes)
    assert any("measured on 1,001 test images, this run's on 1,000" in note for note in notes)


def test_a_baseline_of_another_network_is_refused_by_its_sizes(told, tmp_path):
    network = nn.Conv2d(3, 4, 1)
    loaded, example = LoadedModel(network, "model.pt", None), torch.zeros(1, 3, 5, 5)
    baseline = read(told, tmp_path)
    with pytest.raises(InputError, match=r"11,689,512 parameters .* this one has 16 and 300"):
        require_same_network(baseline, loaded, example)
    require_same_network(
        dataclasses.replace(baseline, original_size=Size(16, 12, 300)), loaded, example
    )
    require_same_network(None, loaded, example)
