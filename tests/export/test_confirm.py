"""Which state is shipped: the last that is confirmed, in float or in int8, else the original."""

from __future__ import annotations

import copy
import sys
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
import torch
from torch import nn

from slimnet.export.confirm import Confirmer, from_safe_to_aggressive, plan_confirmation
from slimnet.export.int8 import Int8Network
from slimnet.options import Options
from slimnet.records.data import Split
from slimnet.records.measured import Drop, Int8, Latency
from slimnet.records.search import Candidate, PredictedLatency, Step, Trajectory
from slimnet.search import EmptyPath, FoundState, unchanged_state
from slimnet.tasks import CLASSIFICATION, confirmable_points
from slimnet.tasks.confirmation import p_value

CONFIRM = sys.modules["slimnet.export.confirm"]
IMAGES = 1000
OPTIONS = Options(max_drop=5.0)


class Lossy(nn.Module):
    """Takes the number of an image, and is wrong about the first few."""

    def __init__(self, lost, parameters=100):
        super().__init__()
        self.lost, self.weight = lost, nn.Parameter(torch.zeros(parameters))

    def forward(self, numbers):
        wrong = (numbers[:, 0] < self.lost).float()
        return torch.stack([1 - wrong, wrong], 1)


def split_of(images=IMAGES, first=0):
    numbers = torch.arange(first, first + images, dtype=torch.float32)[:, None]
    labels = torch.zeros(images, dtype=torch.int64)
    return Split(
        "confirmation", images, list(zip(numbers.split(128), labels.split(128), strict=True))
    )


def drop_of(points):
    return Drop(100.0, 100.0 - points, points, points, points, 0.5, 200)


def found(step, lost, points=0.5):
    """A state that loses so many of the confirmation images, and so many points by estimate."""
    candidate = Candidate("l1_weight", {"0": (step,)}, 0.1, 16)
    steps = tuple(
        Step(number, (candidate,), (0,), 1, 5.0, 5.0, 0.1, drop_of(points), True, False, 0.5)
        for number in range(1, step + 1)
    )
    trajectory = Trajectory(
        steps, step, "nothing more fits", {"0": {"out": (step,)}}, PredictedLatency(2.0, 1.0, 0),
        finished_by=("refit",),
    )  # fmt: skip
    return FoundState(Lossy(lost, 100 - 10 * step), drop_of(points), step, lambda: trajectory)


@dataclass
class Path_:
    """A path that notes what was read of it."""

    found: list
    read: int = 0

    def states(self):
        for state in self.found:
            self.read += 1
            yield state

    def last(self):
        return self.found[-1]


def confirmer(split=None, options=OPTIONS, original=None):
    original = Lossy(0) if original is None else original
    said = []
    measured = split and CLASSIFICATION.measure(original, split, 0.95)
    return Confirmer(
        original, measured, split, CLASSIFICATION, torch.zeros(2, 1), options, said.append
    ), said


def test_the_last_state_that_is_confirmed_is_shipped_and_no_later_one_is_tried():
    path = Path_([found(1, 5), found(2, 20), found(3, 45), found(4, 10)])
    chooser, said = confirmer(split_of())
    state, int8, tests = chooser.choose(path, None)
    assert state is path.found[1]
    assert int8 is None
    assert path.read == 3
    assert [test.confirmed for test in tests] == [True, True, False]
    assert said == [f"confirming step {step}, slim.onnx" for step in (1, 2, 3)]


def test_a_test_records_what_it_is_of():
    original = Lossy(0)
    (test,) = confirmer(split_of(), original=original)[0].choose(Path_([found(2, 35, 1.5)]), None)[
        2
    ]
    assert (test.step, test.file, test.selection_points) == (2, "slim.onnx", 1.5)
    assert test.parameters_removed_percent == pytest.approx(20)
    assert (test.drop.points, test.drop.images, test.drop.confidence) == (3.5, IMAGES, 0.95)
    assert test.p_value == p_value(35, 0, IMAGES, 5.0) < 0.05
    for confidence in (1 - test.p_value - 1e-6, 1 - test.p_value + 1e-6):
        chooser, _ = confirmer(split_of(), replace(OPTIONS, confidence=confidence))
        (again,) = chooser.choose(Path_([found(2, 35)]), None)[2]
        assert again.confirmed == (again.p_value <= 1 - confidence)
        assert again.confirmed == (confidence < 1 - test.p_value)


def test_all_states_may_be_confirmed():
    path = Path_([found(1, 5), found(2, 20)])
    state, _, tests = confirmer(split_of())[0].choose(path, None)
    assert state is path.found[1]
    assert [test.confirmed for test in tests] == [True, True]


def test_where_the_first_fails_the_original_is_shipped_and_says_why():
    original = Lossy(0)
    with torch.no_grad():
        original.weight += 7
    path = Path_([found(1, 45), found(2, 10)])
    chooser, _ = confirmer(split_of(), original=original)
    state, int8, tests = chooser.choose(path, None)
    assert (int8, len(tests), path.read) == (None, 1, 1)
    assert state.network is not original
    assert torch.equal(state.network.weight, original.weight)
    assert (state.step, state.trajectory.plan, state.trajectory.predicted) == (0, {}, None)
    assert state.trajectory.finished_by == ()
    assert [step.number for step in state.trajectory.steps] == [1, 2]
    assert all(step.taken_back for step in state.trajectory.steps)
    assert (state.drop.points, state.drop.slim_percent) == (0, state.drop.original_percent)
    reason = state.trajectory.stopped_because
    assert "the safest state that the search found could not be confirmed" in reason
    assert "removes 10.0 % of the parameters and drops 4.50 points on 1,000 images" in reason
    assert f"(p = {p_value(45, 0, IMAGES, 5.0):.2f}); give more images" in reason


def test_a_search_that_found_nothing_keeps_its_own_reason():
    state = unchanged_state(Lossy(0), drop_of(0.0), "no layer can be slimmed")
    for split in (split_of(), None):
        got, int8, tests = confirmer(split)[0].choose(EmptyPath(state), None)
        assert got is state
        assert (int8, tests) == (None, ())
    got, int8, tests = confirmer(split_of())[0].choose(EmptyPath(state), lambda state: 1 / 0)
    assert got is state
    assert (int8, tests) == (None, ())


def test_without_confirmation_images_the_end_of_the_search_is_shipped_as_it_is():
    path = Path_([found(1, 500, 9.0), found(2, 500, 9.5)])
    chooser, said = confirmer()
    state, int8, tests = chooser.choose(path, None)
    assert state is path.found[1]
    assert (int8, tests, said, path.read) == (None, (), [], 0)


def in_int8(lost, points=0.5, reason=""):
    """The int8 network of a state; with a reason it could not be made."""
    if reason:
        return Int8Network(Path("slim.int8.onnx"), None, Int8(reason=reason))
    record = Int8(ranges="minmax", selection_drop=drop_of(points))
    return Int8Network(Path("slim.int8.onnx"), Lossy(lost), record)


def order(floats, int8s):
    states = [found(step, 0, points) for step, points in enumerate(floats, 1)]
    made = dict(enumerate(int8s, 1))
    return [
        f"{one.state.step}{'i' * (one.int8 is not None)}"
        for one in from_safe_to_aggressive(states, made)
    ]


@pytest.mark.parametrize(
    ("floats", "int8s", "expected"),
    [
        ((1, 2, 3), (1.5, 2.5, 3.5), "1 1i 2 2i 3 3i"),
        ((1, 2, 3), (2.5, 3.5, 9), "1 2 1i 3 2i 3i"),
        ((1, 2, 3), (9, 10, 11), "1 2 3 1i 2i 3i"),
        # an estimate that seems to gain accuracy is noise: the order is that of what went
        ((2, 1, 3), (0, -1, 2), "1 1i 2 2i 3 3i"),
        ((1, 2, 3), (9, 2, 3), "1 2 3 1i 2i 3i"),
        ((0, 0, 0), (0, 0, 0), "1 1i 2 2i 3 3i"),
        ((1, 2), (None, 5), "1 2 2i"),
        ((1, 2), (None, None), "1 2"),
    ],
)
def test_states_and_their_int8_files_are_tested_from_safe_to_aggressive(floats, int8s, expected):
    made = [in_int8(0, reason="no") if one is None else in_int8(0, one) for one in int8s]
    assert order(floats, made) == expected.split()


def faster(monkeypatch, *speedups):
    """Let every timing find these speed-ups, and note which files were timed."""
    timed = []

    def measure(runtime, files, example, sizes, options):
        timed.append([str(file.onnx) for file in files])
        return [
            Latency("onnxruntime-cpu", 1, 1, (1.0,), (1.0,), 1.0, 1.0, s, s, s, True)
            for s in speedups
        ]

    monkeypatch.setattr(CONFIRM, "measure_latency", measure)
    return timed


def choose_int8(states, made, split, options=OPTIONS):
    chooser, _ = confirmer(split, options)
    return chooser.choose(Path_(states), lambda state: made[state.step])


def test_a_state_confirmed_in_float_and_in_int8_ships_both_without_a_timing(monkeypatch):
    timed = faster(monkeypatch, 9.0)
    states, made = [found(1, 5, 1), found(2, 10, 2)], {1: in_int8(6, 1.5), 2: in_int8(12, 2.5)}
    state, int8, tests = choose_int8(states, made, split_of())
    assert state is states[1]
    assert int8 is made[2]
    assert timed == []
    assert [(test.step, test.file) for test in tests] == [
        (1, "slim.onnx"), (1, "slim.int8.onnx"), (2, "slim.onnx"), (2, "slim.int8.onnx"),
    ]  # fmt: skip
    assert [test.selection_points for test in tests] == [1, 1.5, 2, 2.5]
    assert [round(test.drop.points, 6) for test in tests] == [0.5, 0.6, 1.0, 1.2]
    percents = [test.parameters_removed_percent for test in tests]
    assert percents == pytest.approx([10, 10, 20, 20])


@pytest.mark.parametrize(("speedups", "step"), [((1.2, 1.1), 1), ((0.8, 0.9), 3), ((2.0, 0.6), 1)])
def test_of_two_confirmed_states_the_faster_file_decides(monkeypatch, speedups, step):
    """An earlier state in int8 may be faster than a later one in float."""
    timed = faster(monkeypatch, *speedups)
    states = [found(1, 5, 1), found(2, 10, 2), found(3, 15, 3)]
    made = {1: in_int8(6, 1.5), 2: in_int8(400, 4), 3: in_int8(400, 4.5)}
    made = {
        number: replace(one, path=Path(f"{number}/slim.int8.onnx")) for number, one in made.items()
    }
    state, int8, tests = choose_int8(states, made, split_of())
    assert timed == [[str(Path("3/slim.onnx")), str(Path("1/slim.int8.onnx"))]]
    assert [test.confirmed for test in tests] == [True] * 4 + [False]
    assert state is states[step - 1]
    if step == 1:
        assert int8 is made[1]
    else:
        assert int8.network is None
        assert "not confirmed" in int8.record.reason
        assert "the last state confirmed in int8 is slower than slim.onnx" in int8.record.reason


def test_what_is_not_confirmed_in_int8_is_not_shipped_in_it(monkeypatch):
    timed = faster(monkeypatch, 9.0)
    states, made = [found(1, 5)], {1: in_int8(400)}
    state, int8, _ = choose_int8(states, made, split_of())
    assert state is states[0]
    assert (int8.network, timed) == (None, [])
    assert int8.record.reason == "it was not confirmed to be within the budget"
    assert int8.record.selection_drop == made[1].record.selection_drop


def test_what_could_not_be_made_in_int8_says_why():
    states, made = [found(1, 5), found(2, 9)], {1: in_int8(6), 2: in_int8(0, reason="skipped: it")}
    made[1] = in_int8(0, reason="skipped: one")
    state, int8, tests = choose_int8(states, made, split_of())
    assert state is states[1]
    assert int8 is made[2]
    assert len(tests) == 2


def test_where_the_first_fails_no_int8_file_is_shipped_either():
    state, int8, tests = choose_int8([found(1, 45)], {1: in_int8(0)}, split_of())
    assert (state.step, int8, len(tests)) == (0, None, 1)


def test_without_confirmation_images_estimates_decide_on_int8(monkeypatch):
    """The estimate of each file must be within the budget; the search holds that of the float."""
    faster(monkeypatch, 2.0)
    states = [found(1, 0, 1), found(2, 0, 4)]
    options = replace(OPTIONS, confidence=0.5)
    for points, step, shipped in ((4.9, 2, 2), (5.1, 1, 1)):
        made = {1: in_int8(0, 2), 2: in_int8(0, points)}
        state, int8, tests = choose_int8(states, made, None, options)
        assert state.step == step
        assert int8 is made[shipped]
        assert [test.confirmed for test in tests][-1] == (points < 5)


def planned(images, max_drop=5.0, first=0):
    split = split_of(images, first)
    original = CLASSIFICATION.measure(Lossy(0), split, 0.95)
    return plan_confirmation(CLASSIFICATION, original, split, Options(max_drop=max_drop))


def test_before_the_search_it_is_known_whether_anything_can_be_confirmed():
    plan = planned(60)
    assert (plan.images, plan.tests, plan.impossible, plan.earlier_runs) == (60, (), "", 0)
    assert plan.test == CLASSIFICATION.test_name
    assert plan.confirmable_points == confirmable_points(60, 5.0, 0.95)
    why = planned(50).impossible
    assert why.startswith("with 50 confirmation images not even an unchanged network can be")
    assert "within 5 points at 95 % confidence: give more images, a larger --max-drop" in why
    assert planned(50, 10.0).impossible == ""
    assert planned(IMAGES, 0.0).impossible


def test_the_same_images_have_the_same_hash_and_others_another():
    assert planned(60).images_sha256 == planned(60, 9.0).images_sha256
    # of 200 and of 201 images the first batch is the same
    others = ((60,), (61,), (60, 5.0, 1), (200,), (201,))
    assert len({planned(*one).images_sha256 for one in others}) == len(others)


def test_nothing_that_is_handed_in_is_changed():
    original, path = Lossy(0), Path_([found(1, 5), found(2, 45)])
    before = copy.deepcopy([one.network.state_dict() for one in path.found])
    confirmer(split_of(), original=original)[0].choose(path, None)
    for one, state in zip(path.found, before, strict=True):
        assert all(torch.equal(v, state[k]) for k, v in one.network.state_dict().items())
    assert torch.equal(original.weight, Lossy(0).weight)
