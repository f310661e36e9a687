"""Int8 is shipped where it is within the budget and faster; elsewhere the reason says why."""

from __future__ import annotations

import hashlib
import sys
from dataclasses import replace

import onnx
import pytest
import torch

from slimnet import export, tasks, timing
from slimnet.errors import InputError
from slimnet.export import int8 as int8_choice
from slimnet.export.int8 import Int8Network
from slimnet.options import Options
from slimnet.records.measured import Artefacts, Drop, Int8, Latency, Parity
from slimnet.records.search import Trajectory
from slimnet.search import FoundState

INT8 = sys.modules["slimnet.export.int8"]
NAME = "slim.int8.onnx"
NOTE = {"plan_sha256": "p", "drop_points": "1"}
PARITY = Parity(0.0, 1e-4, 2)


def latency(batch_size, low, high):
    middle = (low + high) / 2
    sure = not low <= 1 <= high
    known = ((2.0,), (2 / middle,), 2.0, 2 / middle, middle, low, high, sure)
    return Latency("onnxruntime-cpu", 1, batch_size, *known)


FASTER = (latency(1, 0.9, 1.3), latency(32, 1.5, 1.7))
SLOWER = (latency(1, 0.6, 0.8), latency(32, 1.5, 1.7))
SAME = (latency(1, 0.9, 1.2),)


def export_onnx(model, example, path):
    return export.write_onnx(export.translate(model, example, 20), path, {})


@pytest.fixture
def written(trained, tmp_path):
    """The trained network as if it were both original and slim."""
    model, splits = trained
    inputs = next(iter(splits.calibration.batches))[0]
    files = [
        export_onnx(model, inputs[:2], tmp_path / name) for name in ("original.onnx", "slim.onnx")
    ]
    return Artefacts(*files, PARITY, {"slim.onnx": files[1].sha256})


def made_of(trained, folder, task=tasks.CLASSIFICATION, options=None):
    """The trained network in int8, as if it were the state after step 7."""
    model, splits = trained
    original = task.measure(model, splits.selection, 0.5)
    trajectory = Trajectory((), 7, "it ended", {})
    state = FoundState(model, task.drop(original, original, 0.5), 7, lambda: trajectory)
    example = next(iter(splits.calibration.batches))[0][:2]
    return export.make_int8(folder, state, example, task, splits, original, options or Options())


def test_a_network_of_any_size_is_one_in_int8_too(trained, tmp_path):
    torch.manual_seed(0)
    pooled = torch.nn.Sequential(
        torch.nn.Conv2d(1, 8, 3, padding=1), torch.nn.ReLU(), torch.nn.AdaptiveAvgPool2d(1),
        torch.nn.Flatten(), torch.nn.Linear(8, 4),
    ).eval()  # fmt: skip
    made = made_of((pooled, trained[1]), tmp_path, options=Options(dynamic_size=True))
    assert made.network is not None, made.record.reason
    (shape,) = [value.type.tensor_type.shape for value in onnx.load(made.path).graph.input]
    assert [axis.dim_param for axis in shape.dim[2:]] == ["height", "width"]


def tried(trained, written, monkeypatch, timed=FASTER, task=tasks.CLASSIFICATION, **changes):
    model, splits = trained
    options = Options(**{"confidence": 0.5, **changes})
    monkeypatch.setattr(INT8, "measure_latency", lambda *_, **__: timed)
    before = {s.name: task.measure(model, s, options.confidence) for s in splits.evaluated}
    folder = written.slim_onnx.path.parent / "scratch"
    folder.mkdir()
    made = made_of(trained, folder, task)
    example = next(iter(splits.calibration.batches))[0][:2]
    return export.ship_int8(made, written, example, task, before, splits, options, NOTE)


def test_a_state_is_made_in_int8_in_a_folder_of_its_own(trained, tmp_path):
    model, splits = trained
    before = {name: value.clone() for name, value in model.state_dict().items()}
    made = made_of(trained, tmp_path)
    assert made.path == tmp_path / "7" / NAME
    assert made.float_path == tmp_path / "7" / "slim.onnx"
    assert all(path.is_file() for path in (made.path, made.float_path))
    record = made.record
    assert (record.shipped, record.reason) == (False, "")
    assert record.bytes == made.path.stat().st_size
    # the estimate is that of the file on the selection images
    images, labels = (torch.cat(part) for part in zip(*splits.selection.batches, strict=True))
    right = (made.network(images).argmax(1) == labels).double().mean()
    assert record.selection_drop.slim_percent == pytest.approx(100 * float(right))
    assert record.selection_drop.confidence == 0.5
    assert record.confirmation_drop is record.test_drop is None
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_confirmed_and_faster_it_is_shipped_with_its_hash(trained, written, monkeypatch, tmp_path):
    artefacts, record = tried(trained, written, monkeypatch, confidence=0.9)
    assert record.shipped
    assert not record.reason
    notes = {entry.key: entry.value for entry in onnx.load(tmp_path / NAME).metadata_props}
    assert notes == {
        "plan_sha256": "p", "int8_numbers": record.numbers, "int8_ranges": record.ranges,
        "slim_onnx_sha256": written.slim_onnx.sha256,
    }  # fmt: skip
    assert artefacts.sha256[NAME] == hashlib.sha256((tmp_path / NAME).read_bytes()).hexdigest()
    assert (record.selection_drop.confidence, record.test_drop.confidence) == (0.5, 0.9)
    assert set(artefacts.sha256) == {"slim.onnx", NAME}
    assert record.bytes == (tmp_path / NAME).stat().st_size
    assert record.selection_drop.images == record.test_drop.images == 60
    assert record.ranges == min(record.distances, key=record.distances.get)
    assert 0 < record.distances[record.ranges] < 0.1
    assert record.against_slim == record.against_original == FASTER


def test_not_confirmed_it_goes_and_nothing_more_is_measured(trained, written, tmp_path):
    record = Int8(reason="it was not confirmed", selection_drop=Drop(90, 89, 1, 1, 1, 0.5, 60))
    made = Int8Network(tmp_path / "7" / NAME, None, record)
    before = {}  # a measurement of the test images would be looked for here
    given = (None, tasks.CLASSIFICATION, before, trained[1], Options(), NOTE)
    artefacts, found = export.ship_int8(made, written, *given)
    assert artefacts is written
    assert found == record
    assert not (tmp_path / NAME).exists()


def test_the_drop_on_the_confirmation_images_is_that_of_the_file(
    trained, confirmable, written, monkeypatch, tmp_path
):
    both = trained[0], replace(confirmable, test=trained[1].test)
    _, record = tried(both, written, monkeypatch, confidence=0.95)
    network = timing.OnnxNetwork(tmp_path / NAME)
    for name, drop in (("confirmation", record.confirmation_drop), ("test", record.test_drop)):
        split = getattr(both[1], name)
        images, labels = (torch.cat(part) for part in zip(*split.batches, strict=True))
        right = (network(images).argmax(1) == labels).double().mean()
        assert drop.slim_percent == pytest.approx(100 * float(right))
        assert (drop.images, drop.confidence) == (split.images, 0.95)
    assert record.drop is record.confirmation_drop


@pytest.mark.parametrize(("timed", "word"), [(SLOWER, "slower"), (SAME, "not measurably faster")])
def test_not_faster_it_goes(trained, written, monkeypatch, tmp_path, timed, word):
    artefacts, record = tried(trained, written, monkeypatch, timed)
    assert artefacts is written
    assert not (tmp_path / NAME).exists()
    assert record.reason.startswith(f"it is {word} than slim.onnx on this machine")
    assert "95 % interval" in record.reason
    assert record.test_drop is not None


def test_a_task_that_needs_the_network_itself_skips_it(trained, written, monkeypatch, tmp_path):
    def score(model, batches):
        return 50 + 0 * float(model[0].weight.sum())  # an ONNX file has no layers

    task = tasks.Task(tasks.CLASSIFICATION.loss, score)
    _, record = tried(trained, written, monkeypatch, task=task)
    assert record.reason.startswith("skipped: the task's score fails")
    assert not (tmp_path / NAME).exists()


def test_a_task_of_ones_own_is_measured_on_the_file(trained, written, monkeypatch):
    task = tasks.Task(tasks.CLASSIFICATION.loss, tasks.CLASSIFICATION.score)
    _, record = tried(trained, written, monkeypatch, task=task)
    assert record.shipped
    assert record.selection_drop.quantity == "top 1 accuracy"


def test_a_full_disk_is_no_reason_to_go_on_without(trained, written, monkeypatch):
    def full(*_):
        raise InputError("cannot write slim.int8.onnx") from OSError("no space left")

    monkeypatch.setattr(INT8, "quantise_best", full)
    with pytest.raises(InputError, match="cannot write"):
        tried(trained, written, monkeypatch)


def test_images_come_from_all_over_the_split_and_others_compare(trained, monkeypatch, tmp_path):
    model, splits = trained
    monkeypatch.setattr(int8_choice, "MAX_IMAGES", 40)
    monkeypatch.setattr(int8_choice, "MAX_BATCHES", 4)
    inputs = int8_choice.inputs_to_quantise_on(model, splits.calibration, tasks.CLASSIFICATION)
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
    held_out = []
    monkeypatch.setattr(
        int8_choice, "_distance", lambda one, other, inputs: held_out.append(inputs) or 0.5
    )
    file = export_onnx(model, batches[0][:2], tmp_path / "slim.onnx")
    found = int8_choice.quantise_best(file.path, inputs, tmp_path / NAME, {})
    assert found == {"minmax": 0.5, "percentile": 0.5}
    assert len(held_out[0]) + len(ranging[0]) == len(inputs)
    assert not any(x is y for x in held_out[0] for y in ranging[0])
    assert held_out[0][0] is inputs[-1]


def test_the_nearest_way_is_the_one_that_is_written(trained, monkeypatch, tmp_path):
    model, splits = trained
    inputs = int8_choice.inputs_to_quantise_on(model, splits.calibration, tasks.CLASSIFICATION)
    file = export_onnx(model, inputs[0][:2], tmp_path / "slim.onnx")
    for best in int8_choice.METHODS:
        distances = {method: float(method != best) for method in int8_choice.METHODS}
        turns = iter(distances.values())
        monkeypatch.setattr(int8_choice, "_distance", lambda *_, turns=turns: next(turns))
        assert int8_choice.quantise_best(file.path, inputs, tmp_path / NAME, {}) == distances
        expected = tmp_path / "alone.onnx"
        ranging = [x for n, x in enumerate(reversed(inputs)) if n % int8_choice.HELD_OUT_EVERY]
        int8_choice.quantise(file.path, ranging, best, expected, {"int8_ranges": best})
        assert (tmp_path / NAME).read_bytes() == expected.read_bytes()
