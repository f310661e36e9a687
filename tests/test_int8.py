"""A whole run with int8: what is written, reported and checked again, and what is refused."""

from __future__ import annotations

import hashlib
import json
import shutil
import sys

import onnx
import pytest
import torch

import slimnet
from slimnet.cli.app import run
from slimnet.export import Confirmer
from slimnet.options import Options
from slimnet.timing.latency import summarise
from slimnet.verify import verify

NAME = "slim.int8.onnx"
OPTIONS = {"confidence": 0.5, "oracle_k": 3, "objective": "params", "latency_samples": 3,
         "latency_batch": (1,), "int8": True}  # fmt: skip


@pytest.fixture(scope="module")
def finished(trained, tmp_path_factory):
    """A finished folder; what int8 is timed against is twice as slow."""
    folder = tmp_path_factory.mktemp("int8")
    torch.save(trained[0], folder / "model.pt")
    twice = summarise("onnxruntime-cpu", 1, 1, [([2.0] * 10, [1.0] * 10)], seed=0)
    with pytest.MonkeyPatch.context() as patch:
        for name in ("slimnet.export.int8", "slimnet.export.confirm"):
            patch.setattr(sys.modules[name], "measure_latency", lambda *_, **__: (twice,))
        slimnet.compress(folder / "model.pt", trained[1], 20, out=folder / "slim", **OPTIONS)
    return folder


@pytest.fixture
def copied(finished, tmp_path):
    shutil.copytree(finished / "slim", tmp_path / "slim")
    return tmp_path / "slim"


def report_of(folder):
    return json.loads((folder / "report.json").read_text())


def failing(folder, **given):
    return [check.name for check in verify(folder, **given).checks if not check.holds]


def test_the_file_is_there_and_report_of(finished):
    report = report_of(finished / "slim")
    assert report["int8"]["shipped"]
    assert NAME in report["artefacts"]["sha256"]
    assert report["int8"]["bytes"] == (finished / "slim" / NAME).stat().st_size
    assert "measuring int8" in report["seconds"]
    assert "--int8" in report["command"]
    assert NAME in (finished / "slim" / "report.html").read_text()


def test_verify_measures_it_again(finished, trained):
    found = verify(finished / "slim", model=finished / "model.pt", data=trained[1])
    assert found.holds, found
    assert {NAME, "int8 drop", "int8 test drop"} <= {check.name for check in found.checks}


def test_in_a_confirmed_run_each_file_is_tested_and_tested_again(
    trained, confirmable, tmp_path, monkeypatch
):
    monkeypatch.setattr(sys.modules["slimnet.export.int8"], "_not_faster", lambda _: "")
    monkeypatch.setattr(Confirmer, "_is_faster", lambda *_: True)
    changes = {**OPTIONS, "confidence": 0.95}
    result = slimnet.compress(trained[0], confirmable, 10, out=tmp_path / "slim", **changes)
    report, int8 = result.report, result.report.int8
    assert int8.shipped
    tested = {(test.step, test.file): test for test in report.confirmation.tests if test.confirmed}
    step = report.trajectory.kept_steps
    assert tested[step, "slim.onnx"].drop == report.confirmation_drop
    assert tested[step, NAME].drop == int8.confirmation_drop
    assert tested[step, NAME].selection_points == int8.selection_drop.points
    checks = {check.name: check for check in verify(tmp_path / "slim", data=confirmable).checks}
    assert all(check.holds for check in checks.values()), checks
    for name in ("drop", "int8 drop"):
        assert "240 confirmation images, as in the report; confirmed to be at" in checks[name].seen


def test_verify_sees_another_file_and_another_drop(copied, trained):
    report = report_of(copied)
    report["int8"]["test_drop"]["slim_percent"] -= 10
    (copied / "report.json").write_text(json.dumps(report))
    assert failing(copied, data=trained[1]) == ["int8 test drop"]
    report["int8"]["selection_drop"]["slim_percent"] -= 10
    (copied / "report.json").write_text(json.dumps(report))
    assert failing(copied, data=trained[1]) == ["int8 drop", "int8 test drop"]
    (copied / NAME).write_bytes((copied / NAME).read_bytes()[:-1])
    assert failing(copied) == ["files", NAME]
    (copied / NAME).unlink()
    assert failing(copied) == ["files", NAME]


def test_verify_measures_the_file_itself(copied, trained):
    proto = onnx.load(copied / NAME)
    weights = next(x for x in reversed(proto.graph.initializer) if len(x.dims) > 1)
    weights.raw_data = bytes(len(weights.raw_data))
    onnx.save(proto, copied / NAME)
    report = report_of(copied)
    digest = hashlib.sha256((copied / NAME).read_bytes()).hexdigest()
    report["artefacts"]["sha256"][NAME] = digest
    (copied / "report.json").write_text(json.dumps(report))
    assert failing(copied, data=trained[1]) == ["int8 drop", "int8 test drop"]


@pytest.mark.parametrize("int8", [None, {"shipped": True}, {"shipped": True, "bytes": 1}])
def test_a_forged_report_is_no_crash(copied, trained, int8):
    report = report_of(copied)
    del report["artefacts"]["sha256"][NAME]
    (copied / "report.json").write_text(json.dumps({**report, "int8": int8}))
    assert failing(copied, data=trained[1]) == (
        [NAME, "int8 drop", "int8 test drop"] if int8 else []
    )


@pytest.mark.parametrize("int8", ["x", [1]])
def test_a_report_of_another_form_is_refused_in_one_line(copied, int8):
    (copied / "report.json").write_text(json.dumps({**report_of(copied), "int8": int8}))
    with pytest.raises(slimnet.InputError, match=r"report\.json cannot be read as one") as caught:
        verify(copied)
    assert "\n" not in str(caught.value)


def test_a_folder_with_it_may_be_written_over(copied, finished, trained):
    slimnet.compress(trained[0], trained[1], 20, out=copied, **{**OPTIONS, "int8": False})
    assert not (copied / NAME).exists()
    assert report_of(copied)["int8"] is None


def test_without_labels_agreement_is_what_counts(finished, trained, tmp_path, monkeypatch):
    monkeypatch.setattr(sys.modules["slimnet.export.int8"], "_not_faster", lambda _: "")
    changes = {**OPTIONS, "labels": "none"}
    result = slimnet.compress(
        finished / "model.pt", trained[1], 20, out=tmp_path / "slim", **changes
    )
    assert result.report.int8.shipped
    assert result.report.int8.test_drop.quantity == "agreement"
    assert verify(tmp_path / "slim", data=trained[1]).holds


@pytest.mark.parametrize("runtime", ["torch-cuda", "ort-cuda"])
def test_it_is_for_the_cpu(runtime, capsys):
    with pytest.raises(slimnet.InputError, match=f"int8 is for .* got runtime {runtime}"):
        Options(int8=True, runtime=runtime)
    assert run(["compress", "m.pt", "--data", "d", "--int8", "--runtime", runtime]) == 2
    assert len(capsys.readouterr().err.strip().splitlines()) == 1
