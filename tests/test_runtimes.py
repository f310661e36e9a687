"""The runtime of a whole run: refused at the door, timed at the end, and its prediction checked."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

import slimnet
from slimnet import export
from slimnet.errors import InputError
from slimnet.records.measured import Artefacts, OnnxFile, Parity
from slimnet.report.json_report import save_report
from slimnet.search import objective
from slimnet.timing import RUNTIMES
from slimnet.timing.openvino import OpenVino
from slimnet.timing.pytorch import PyTorch

OPTIONS = {"confidence": 0.5, "oracle_k": 2, "latency_samples": 10, "latency_batch": (1,)}
PARITY = Parity(0.0, 1e-4, 2)
FILE = OnnxFile(Path("network.onnx"), 1, "", 20, {})


@pytest.fixture
def pytorch(monkeypatch):
    """PyTorch on the CPU, named as if it were CUDA; no ONNX file is written or timed."""
    monkeypatch.delitem(RUNTIMES, "ort-cpu")
    monkeypatch.setitem(RUNTIMES, "torch-cuda", PyTorch("torch-cuda", "torch-cuda", "cpu"))
    monkeypatch.setattr(objective, "measure_paying_widths", lambda *_: (2, 4, 6, 8))
    made = Artefacts(FILE, FILE, PARITY, {})
    monkeypatch.setattr(export, "write_artefacts", lambda *_: made)


@pytest.mark.skipif(torch.cuda.is_available(), reason="for machines without a GPU")
@pytest.mark.parametrize("runtime", ["ort-cuda", "torch-cuda"])
@pytest.mark.parametrize("what", ["latency", "macs"])
def test_a_runtime_that_is_not_there_is_refused_before_anything_is_loaded(runtime, what):
    with pytest.raises(InputError, match=f"got {runtime}, which needs a GPU"):
        slimnet.compress("no-such-model.pt", "no-such-data", runtime=runtime, objective=what)


def test_what_the_search_predicted_is_checked_at_the_batch_of_its_layer_times(trained, pytorch):
    report = slimnet.compress(trained[0], trained[1], 30, runtime="torch-cuda", **OPTIONS).report
    assert report.trajectory.kept_steps
    # that batch size was not asked for: it stands in the check only
    assert [(e.runtime, e.batch_size) for e in report.latency] == [("torch-cuda", 1)]
    check, predicted = report.prediction, report.trajectory.predicted
    assert (check.runtime, check.batch_size) == ("torch-cuda", export.PROFILE_IMAGES)
    assert check.predicted_original_ms == predicted.original_ms
    assert check.predicted_slim_ms == predicted.slim_ms
    assert check.measured_speedup == check.measured_original_ms / check.measured_slim_ms
    said = any("the predicted speed-up is" in note for note in report.notes)
    assert said == (abs(check.off_percent) > 20)


@pytest.mark.skipif(bool(RUNTIMES["openvino"].missing()), reason="openvino is not installed")
def test_openvino_chooses_the_widths_times_the_layers_and_is_timed_beside_onnx_runtime(
    trained, monkeypatch, tmp_path
):
    asked = []
    monkeypatch.setattr(
        objective, "measure_paying_widths", lambda runtime, _: asked.append(runtime.name) or (2, 4)
    )
    given = {**OPTIONS, "runtime": "openvino", "out": tmp_path / "slim"}
    report = slimnet.compress(*trained, 30, **given).report
    assert asked == ["openvino"]
    assert report.trajectory.latency_table.measured_on.startswith("openvino-cpu, threads 1, open")
    assert {"0", "3", "8"} <= set(report.trajectory.latency_table.profiles[0].milliseconds)
    assert [(entry.runtime, entry.batch_size) for entry in report.latency] == [
        ("onnxruntime-cpu", 1), ("openvino-cpu", 1)
    ]  # fmt: skip
    assert report.prediction.runtime == "openvino-cpu"
    assert slimnet.verify(tmp_path / "slim").holds
    outputs = OpenVino.outputs
    monkeypatch.setattr(OpenVino, "outputs", lambda *args: [1.01 * x for x in outputs(*args)])
    with pytest.raises(slimnet.ProofError, match="outputs of openvino"):
        slimnet.compress(*trained, 30, **given, cache=False)
    assert slimnet.verify(tmp_path / "slim").checks[0].holds, "the earlier result stays"


def test_an_objective_without_time_has_nothing_to_check(trained, pytorch):
    report = slimnet.compress(
        trained[0], trained[1], 30, runtime="torch-cuda", objective="macs", **OPTIONS
    ).report
    assert [entry.batch_size for entry in report.latency] == [1]
    assert report.prediction is None


def test_an_earlier_report_gives_the_same_plan_and_nothing_is_timed(
    trained, pytorch, monkeypatch, tmp_path
):
    given = (*trained, 30)
    first = slimnet.compress(*given, runtime="torch-cuda", **OPTIONS)
    save_report(first.report, tmp_path / "report.json")
    monkeypatch.setattr(export, "layer_timer", lambda *_: None)
    monkeypatch.setattr(objective, "measure_paying_widths", None)
    again = slimnet.compress(
        *given, runtime="torch-cuda", latency_table=tmp_path / "report.json", **OPTIONS
    )
    assert again.plan == first.plan
    assert again.report.plan_sha256 == first.report.plan_sha256
    table = again.report.trajectory.latency_table
    assert table == first.report.trajectory.latency_table
    assert table.measured_on.startswith("torch-cuda, threads 1, torch")


def test_a_report_without_layer_times_is_refused_before_the_data_are_read(pytorch, tmp_path):
    (tmp_path / "report.json").write_text("{}")
    with pytest.raises(InputError, match=r"of an earlier run with the objective latency; .* holds"):
        slimnet.compress(
            torch.nn.Linear(3, 2), "no-such-data", runtime="torch-cuda",
            latency_table=tmp_path / "report.json",
        )  # fmt: skip
