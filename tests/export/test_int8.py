"""Int8 is kept where it is within the budget and faster, and where not the reason says why."""

from __future__ import annotations

import sys

import pytest

from slimnet import export, measure
from slimnet.errors import InputError
from slimnet.export import int8_choice
from slimnet.records import Artefacts, Latency, Parity
from slimnet.settings import Settings

INT8 = sys.modules["slimnet.export.int8"]
NAME = "slim.int8.onnx"
PARITY = Parity(0.0, 1e-4, 2)


def latency(batch_size, low, high):
    middle = (low + high) / 2
    sure = not low <= 1 <= high
    known = ((2.0,), (2 / middle,), 2.0, 2 / middle, middle, low, high, sure)
    return Latency("onnxruntime-cpu", 1, batch_size, *known)


FASTER = (latency(1, 0.9, 1.3), latency(32, 1.5, 1.7))
SLOWER = (latency(1, 0.6, 0.8), latency(32, 1.5, 1.7))
SAME = (latency(1, 0.9, 1.2),)


@pytest.fixture
def written(trained, tmp_path):
    """The trained network as if it were both original and slim."""
    model, splits = trained
    inputs = next(iter(splits.calibration.batches))[0]
    files = [
        export.export_onnx(model, inputs[:2], tmp_path / name, 20, {})
        for name in ("original.onnx", "slim.onnx")
    ]
    return Artefacts(*files, PARITY, {"slim.onnx": files[1].sha256})


def tried(trained, written, monkeypatch, timed=FASTER, task=measure.CLASSIFICATION, **dials):
    model, splits = trained
    settings = Settings(**{"confidence": 0.5, **dials})
    monkeypatch.setattr(INT8, "measure_latency", lambda *_, **__: timed)
    before = {
        s.name: task.measure(model, s, settings.confidence) for s in (splits.selection, splits.test)
    }
    example = next(iter(splits.calibration.batches))[0][:2]
    note = {"plan_sha256": "p", "test_drop_points": "1"}
    return export.try_int8(written, model, example, task, before, splits, settings, note)


def test_within_the_budget_and_faster_it_is_kept_with_its_hash(
    trained, written, monkeypatch, tmp_path
):
    artefacts, told = tried(trained, written, monkeypatch)
    assert told.shipped
    assert not told.reason
    assert set(artefacts.sha256) == {"slim.onnx", NAME}
    assert told.bytes == (tmp_path / NAME).stat().st_size
    assert told.selection_drop.images == told.test_drop.images == 60
    assert told.ranges == min(told.distances, key=told.distances.get)
    assert 0 < told.distances[told.ranges] < 0.1
    assert told.against_slim == told.against_original == FASTER


def test_over_the_budget_it_goes_and_the_test_split_is_not_looked_at(
    trained, written, monkeypatch, tmp_path
):
    artefacts, told = tried(trained, written, monkeypatch, max_drop=0.0, confidence=0.95)
    assert artefacts is written
    assert not told.shipped
    assert not (tmp_path / NAME).exists()
    assert told.test_drop is None
    assert told.selection_drop.upper_points > 0
    assert "its upper 95 % bound is" in told.reason
    assert "0 are allowed" in told.reason


@pytest.mark.parametrize(("timed", "word"), [(SLOWER, "slower"), (SAME, "not measurably faster")])
def test_not_faster_it_goes(trained, written, monkeypatch, tmp_path, timed, word):
    artefacts, told = tried(trained, written, monkeypatch, timed)
    assert artefacts is written
    assert not (tmp_path / NAME).exists()
    assert told.reason.startswith(f"it is {word} than slim.onnx on this machine")
    assert "95 % interval" in told.reason
    assert told.test_drop is not None


def test_a_task_that_needs_the_network_itself_skips_it(trained, written, monkeypatch, tmp_path):
    def score(model, batches):
        return 50 + 0 * float(model[0].weight.sum())  # an ONNX file has no layers

    task = measure.Task(measure.CLASSIFICATION.loss, score)
    _, told = tried(trained, written, monkeypatch, task=task)
    assert told.reason.startswith("skipped: the task's score fails")
    assert not (tmp_path / NAME).exists()


def test_a_task_of_ones_own_is_measured_on_the_file(trained, written, monkeypatch):
    task = measure.Task(measure.CLASSIFICATION.loss, measure.CLASSIFICATION.score)
    _, told = tried(trained, written, monkeypatch, task=task)
    assert told.shipped
    assert told.selection_drop.quantity == "top 1 accuracy"


def test_a_full_disk_is_no_reason_to_go_on_without(trained, written, monkeypatch):
    def full(*_):
        raise InputError("cannot write slim.int8.onnx") from OSError("no space left")

    monkeypatch.setattr(INT8, "quantise_best", full)
    with pytest.raises(InputError, match="cannot write"):
        tried(trained, written, monkeypatch)


def test_images_come_from_all_over_the_split_and_others_judge(trained, monkeypatch, tmp_path):
    model, splits = trained
    monkeypatch.setattr(int8_choice, "MOST_IMAGES", 40)
    monkeypatch.setattr(int8_choice, "MOST_BATCHES", 4)
    inputs = int8_choice.inputs_to_quantise_on(model, splits.calibration, measure.CLASSIFICATION)
    assert 32 <= sum(map(len, inputs)) <= 40
    batches = [x for x, _ in splits.calibration.batches]
    taken = [n for n, batch in enumerate(batches) if any((batch[0] == x[0]).all() for x in inputs)]
    assert taken == [0, 2, 4, 6]
    ranging = []
    monkeypatch.setattr(
        int8_choice, "quantise", lambda source, inputs, method, path, note: (
            ranging.append(inputs), path.write_bytes(source.read_bytes())
        ),
    )  # fmt: skip
    judging = []
    monkeypatch.setattr(
        int8_choice, "_distance", lambda one, other, inputs: judging.append(inputs) or 0.5
    )
    file = export.export_onnx(model, batches[0][:2], tmp_path / "slim.onnx", 20, {})
    found = int8_choice.quantise_best(file.path, inputs, tmp_path / NAME, {})
    assert found == {"minmax": 0.5, "percentile": 0.5}
    assert len(judging[0]) + len(ranging[0]) == len(inputs)
    assert not any(x is y for x in judging[0] for y in ranging[0])
    assert judging[0][0] is inputs[-1]


def test_the_nearest_way_is_the_one_that_is_written(trained, monkeypatch, tmp_path):
    model, splits = trained
    inputs = int8_choice.inputs_to_quantise_on(model, splits.calibration, measure.CLASSIFICATION)
    file = export.export_onnx(model, inputs[0][:2], tmp_path / "slim.onnx", 20, {})
    for best in int8_choice.METHODS:
        distances = {method: float(method != best) for method in int8_choice.METHODS}
        turns = iter(distances.values())
        monkeypatch.setattr(int8_choice, "_distance", lambda *_, turns=turns: next(turns))
        assert int8_choice.quantise_best(file.path, inputs, tmp_path / NAME, {}) == distances
        expected = tmp_path / "alone.onnx"
        ranging = [x for n, x in enumerate(reversed(inputs)) if n % int8_choice.JUDGING_EVERY]
        int8_choice.quantise(file.path, ranging, best, expected, {"int8_ranges": best})
        assert (tmp_path / NAME).read_bytes() == expected.read_bytes()
