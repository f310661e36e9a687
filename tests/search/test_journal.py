"""The journal: a search cut off anywhere resumes and ends the same, to the bit."""

from __future__ import annotations

import copy
import dataclasses
from importlib import import_module

import pytest
import torch

from slimnet.execution import layout
from slimnet.groups.find import find_groups
from slimnet.options import Options, names_of
from slimnet.search import objective
from slimnet.search.evaluate import CandidateEvaluator
from slimnet.search.journal import DECISIVE, STEP, Journal, fingerprint
from slimnet.search.search import search
from slimnet.tasks.classification import CLASSIFICATION
from slimnet.tasks.drop import evaluate_paired_drop

CUTS = 12
VALUES = [0.1 + 0.2, float("inf"), {"a": [1, 2.5e-17]}, None]
WAYS = {
    "params": {"objective": "params"},
    "single channels": {"step": 1, "oracle_k": 8},
    "sets": {"step": 3, "oracle_k": 8},
    "latency": {"objective": "latency", "oracle_k": 4},
    "fine-tuning": {
        "objective": "params", "finetune_epochs": 2, "finetune_every": 2, "augment": False,
    },
}  # fmt: skip


def never():
    raise AssertionError("this was measured before")


def fill(path, key="key"):
    journal = Journal(path, key)
    for value in VALUES:
        assert journal.replay_or_run("some", lambda value=value: value) == value


def test_what_was_measured_comes_back_and_the_rest_is_measured(tmp_path):
    fill(tmp_path / "journal")
    again = Journal(tmp_path / "journal", "key")
    assert [again.replay_or_run("some", never) for _ in VALUES] == VALUES
    assert again.replay_or_run("more", lambda: (1, 2)) == [1, 2], "as it would be read"
    third = Journal(tmp_path / "journal", "key")
    assert [third.replay_or_run("some", never) for _ in VALUES] == VALUES
    assert third.replay_or_run("more", never) == [1, 2]


def test_steps_are_counted(tmp_path):
    assert Journal(tmp_path / "journal", "key").steps == 0
    journal = Journal(tmp_path / "journal", "key")
    for kind in ("drop", STEP, "drop", STEP, "drop"):
        journal.replay_or_run(kind, lambda: 0)
    assert (journal.steps, Journal(tmp_path / "journal", "key").steps) == (0, 2)


def test_another_key_starts_afresh(tmp_path):
    fill(tmp_path / "journal")
    assert Journal(tmp_path / "journal", "other").replay_or_run("some", lambda: 7) == 7
    assert Journal(tmp_path / "journal", "other").replay_or_run("some", never) == 7
    assert Journal(tmp_path / "journal", "key").replay_or_run("some", lambda: 8) == 8


def test_another_kind_forgets_the_rest(tmp_path):
    fill(tmp_path / "journal")
    journal = Journal(tmp_path / "journal", "key")
    journal.replay_or_run("some", never)
    assert [journal.replay_or_run(kind, lambda: 5) for kind in ("other", "some")] == [5, 5]
    again = Journal(tmp_path / "journal", "key")
    assert [again.replay_or_run(k, never) for k in ("some", "other", "some")] == [VALUES[0], 5, 5]


@pytest.mark.parametrize("length", range(0, 190, 3))
def test_a_torn_line_counts_as_not_written(tmp_path, length):
    fill(tmp_path / "journal")
    whole = (tmp_path / "journal").read_bytes()
    assert len(whole) < 190
    (tmp_path / "journal").write_bytes(whole[:length])
    fill(tmp_path / "journal")
    assert (tmp_path / "journal").read_bytes() == whole


@pytest.mark.parametrize(
    "junk", [b"", b"\n", b"\xff\xfe\n", b"[]\n", b"00000000 [1,2]\n", b"\0" * 9]
)
def test_a_line_that_is_no_entry_ends_it(tmp_path, junk):
    fill(tmp_path / "journal")
    lines = (tmp_path / "journal").read_bytes().splitlines(keepends=True)
    (tmp_path / "journal").write_bytes(b"".join([*lines[:3], junk, *lines[3:]]))
    again = Journal(tmp_path / "journal", "key")
    assert [again.replay_or_run("some", never) for _ in range(2)] == VALUES[:2]
    assert again.replay_or_run("some", lambda: 3) == (VALUES[2] if junk == b"" else 3)


def test_one_that_cannot_be_kept_ends_nothing(tmp_path):
    fill(None)
    fill(tmp_path / "no folder" / "journal")
    (tmp_path / "folder").mkdir()
    fill(tmp_path / "folder")


class Counted:
    """Counts the calls of a function."""

    def __init__(self, function):
        self.function, self.calls = function, 0

    def __call__(self, *arguments):
        self.calls += 1
        return self.function(*arguments)


def time_layers(network):
    return {name: float(network[int(name)].out_channels ** 1.5) for name in ("0", "3")}


@pytest.fixture
def found(trained):
    model, splits = trained
    return model, find_groups(model, splits.calibration.batches[0][0][:2])[0], splits


@pytest.fixture
def counted(monkeypatch):
    """The measurements that a journal saves, by the kind of its entries."""
    found = {
        "paying widths": Counted(lambda *_: (2, 4, 6, 8)),
        "oracle": Counted(CandidateEvaluator._rank),
        "drop": Counted(evaluate_paired_drop),
        "layer times": Counted(time_layers),
    }
    monkeypatch.setattr(layout, "MAX_BATCH", 8)  # so that candidates drop out on the way
    monkeypatch.setattr(objective, "measure_paying_widths", found["paying widths"])
    monkeypatch.setattr(objective, "narrow_widths", lambda widths: (widths, widths))
    monkeypatch.setattr(CandidateEvaluator, "_rank", lambda *given: found["oracle"](*given))
    monkeypatch.setattr(
        import_module("slimnet.tasks.classification"), "evaluate_paired_drop", found["drop"]
    )
    return found


def run(found, way, file, counted, events=None):
    options = Options(max_drop=10, confidence=0.5, **WAYS[way])
    for counter in counted.values():
        counter.calls = 0
    events = [] if events is None else events
    timer = counted["layer times"]
    trajectory, slim = search(*found, options, events.append, timer, file)
    return trajectory, slim.state_dict()


def without_clock(trajectory):
    steps = [dataclasses.replace(step, seconds=0) for step in trajectory.steps]
    return dataclasses.replace(trajectory, steps=tuple(steps), resumed_after_step=0)


def entries(content, kind):
    return content.count(f'["{kind}",'.encode())


@pytest.mark.parametrize("way", WAYS)
def test_cut_off_after_any_entry_a_search_ends_the_same(found, way, tmp_path, counted):
    file = tmp_path / "journal"
    trajectory, weights = run(found, way, file, counted)
    assert trajectory.kept_steps > 1
    full = file.read_bytes()
    lines = full.splitlines(keepends=True)
    for count in range(1, len(lines) + 1, 1 + len(lines) // CUTS):
        cut = b"".join(lines[:count])
        torn = b"".join(lines[count : count + 1])[:-1]
        file.write_bytes(cut + torn[: 3 * count])
        events = []
        got, values = run(found, way, file, counted, events)
        done = entries(cut, STEP)
        assert without_clock(got) == without_clock(trajectory)
        assert all(torch.equal(value, values[name]) for name, value in weights.items())
        assert got.steps[:done] == trajectory.steps[:done], "with the seconds that they took"
        assert got.resumed_after_step == done
        resumed = [f"resuming after step {done} of an interrupted run"] * bool(done)
        assert [event for event in events if isinstance(event, str)] == resumed
        assert len(events) == len(resumed) + len(got.steps)
        for kind, counter in counted.items():
            assert counter.calls == entries(full, kind) - entries(cut, kind), kind


def test_another_search_does_not_go_on_from_it(found, tmp_path, counted):
    model, groups, splits = found
    run(found, "params", tmp_path / "journal", counted)
    first = (tmp_path / "journal").read_bytes().splitlines()[0]
    changed = [(x + 1e-3, y) for x, y in splits.calibration.batches]
    retrained = copy.deepcopy(model)
    retrained[0].bias.data[0] += 1e-6
    others = [
        ((retrained, groups, splits), "params"),
        (found, "single channels"),
        ((model, groups[:1], splits), "params"),
        ((model, groups, dataclasses.replace(splits, calibration=dataclasses.replace(
            splits.calibration, batches=changed))), "params"),
        ((model, groups, dataclasses.replace(splits, selection=splits.test)), "params"),
    ]  # fmt: skip
    for other, way in others:
        assert run(other, way, tmp_path / "journal", counted)[0].resumed_after_step == 0
        assert (tmp_path / "journal").read_bytes().splitlines()[0] != first
    assert run(found, "params", tmp_path / "journal", counted)[0].resumed_after_step == 0


def test_options_that_matter_only_after_the_search_keep_the_journal(trained):
    model, splits = trained
    quality = CLASSIFICATION.measure(model, splits.selection, 0.95)

    def found(**changes):
        options = Options(**changes)
        return fingerprint(model, (), (), [splits.calibration], quality, options, CLASSIFICATION)

    assert found() == found(max_params=5, baseline="old.json", max_regression=9.0)
    assert found() == found(cache=False, int8=True, opset=18)
    assert found() != found(max_drop=4.0)
    assert names_of(Options) - DECISIVE == {
        "min_speedup", "max_params", "max_macs", "max_bytes", "max_latency_ms", "baseline",
        "max_regression", "opset", "dynamic_size", "int8", "cache",
    }  # fmt: skip
