"""An earlier report is read with distrust, and refused in one line."""

from __future__ import annotations

import dataclasses
import json

import pytest
import torch
from torch import nn

from slimnet.errors import InputError
from slimnet.options import Options
from slimnet.records.data import LoadedModel
from slimnet.records.measured import Size
from slimnet.report.baseline import baseline_notes, read_baseline, require_same_network
from slimnet.report.json_report import as_plain


@pytest.fixture
def plain(report):
    return as_plain(report)


def read(plain, folder, quantity="accuracy", **changes):
    path = folder / "report.json"
    path.write_text(plain if isinstance(plain, str) else json.dumps(plain), encoding="utf-8")
    return read_baseline(Options(baseline=str(path), **changes), quantity)


def test_an_own_report_reads_back(plain, report, tmp_path):
    found = read(plain, tmp_path)
    assert (found.slim_size, found.original_size) == (report.slim_size, report.original_size)
    assert (found.test_drop.points, found.artefacts.slim_onnx.bytes) == (4.1, 950)
    assert [timing.speedup_low for timing in found.latency] == [2.4]
    assert read(plain, tmp_path, latency_batch=(32,)).latency[0].speedup_low == 0.8
    assert read_baseline(Options(), "accuracy") is None
    with pytest.raises(InputError, match="its threads were 1, not 4"):
        read(plain, tmp_path, threads=4)


@pytest.mark.parametrize(
    ("path", "value", "why"),
    [
        (["schema_version"], 2, "schema_version: Input should be 1"),
        (["test_drop", "points"], "much", "test_drop.points: Input should be a valid number"),
        (["test_drop", "points"], None, "test_drop.points: Input should be a valid number"),
        (["original_size", "macs"], float("inf"), "original_size.macs: Input should be a"),
        (["slim_size", "parameters"], True, "slim_size.parameters: Input should be a valid int"),
        (["artefacts"], [], "artefacts: Input should be an object"),
        (["latency"], [], "it holds no speed-up on onnxruntime-cpu at batch 1"),
        (["environment"], None, "environment: Input should be an object"),
    ],
)
def test_a_damaged_report_is_refused(path, value, why, plain, tmp_path):
    place = plain
    for name in path[:-1]:
        place = place[name]
    place[path[-1]] = value
    with pytest.raises(InputError, match=r"report\.json of an earlier run") as caught:
        read(plain, tmp_path)
    assert why in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "text", ["", "[]", "5", "null", "{}", '{"schema_version": 1}', "[" * 100_000, "\x00"]
)
def test_other_files_are_refused(text, tmp_path):
    with pytest.raises(InputError, match="cannot be read as one"):
        read(text, tmp_path)


def test_no_file_and_a_folder_are_refused(tmp_path):
    for path in (tmp_path / "absent.json", tmp_path):
        with pytest.raises(InputError, match="name that file"):
            read_baseline(Options(baseline=str(path)), "accuracy")


def test_a_baseline_of_another_score_is_refused(plain, tmp_path):
    with pytest.raises(InputError, match="measures the accuracy, this run the agreement"):
        read(plain, tmp_path, quantity="agreement")


def test_a_renamed_model_and_other_test_images_are_noted(plain, report, tmp_path):
    plain["source"], plain["source_sha256"] = "model_v2.pt", "another"
    plain["test_drop"]["images"] += 1
    plain["environment"] = {"cpu": report.environment.get("cpu")}
    notes = baseline_notes(report, read(plain, tmp_path))
    assert any("was another file: new weights?" in note for note in notes)
    assert any("measured on 1,001 test images, this run's on 1,000" in note for note in notes)


def test_a_baseline_of_another_network_is_refused_by_its_sizes(plain, tmp_path):
    network = nn.Conv2d(3, 4, 1)
    loaded, example = LoadedModel(network, "model.pt", None), torch.zeros(1, 3, 5, 5)
    baseline = read(plain, tmp_path)
    with pytest.raises(InputError, match=r"11,689,512 parameters .* this one has 16 and 300"):
        require_same_network(baseline, loaded, example)
    require_same_network(
        dataclasses.replace(baseline, original_size=Size(16, 12, 300)), loaded, example
    )
    require_same_network(None, loaded, example)
