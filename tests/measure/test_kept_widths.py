"""The cache of paying widths: what it keeps, and that nothing about it can go wrong for a user."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from slimnet.measure import kept_widths, measure_paying_widths, paying_widths
from slimnet.measure.kept_widths import FILE, recall_widths, remember_widths


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    return tmp_path / "slimnet"


def test_machines_are_kept_side_by_side_in_one_file(folder):
    assert recall_widths("one") is None
    remember_widths("one", (8, 16))
    remember_widths("two", (4, 8, 12))
    remember_widths("one", (16, 32))
    assert recall_widths("one") == (16, 32)
    assert recall_widths("two") == (4, 8, 12)
    assert os.listdir(folder) == [FILE]


@pytest.mark.parametrize(
    "text",
    ["", "{", "[1]", '{"one": "8"}', '{"one": []}', '{"one": [16, 8]}', '{"one": [8, 8]}',
     '{"one": [0, 8]}', '{"one": [true, 8]}', '{"one": [8.5]}', "[" * 100_000, b"\xff\xfe\x00"],
)  # fmt: skip
def test_a_broken_cache_is_an_empty_one_and_is_mended(folder, text):
    folder.mkdir()
    (folder / FILE).write_bytes(text if isinstance(text, bytes) else text.encode())
    assert recall_widths("one") is None
    remember_widths("one", (8, 16))
    assert recall_widths("one") == (8, 16)


def test_a_cache_that_cannot_be_written_is_no_trouble(folder):
    folder.write_text("a file where the folder should be")
    remember_widths("one", (8, 16))
    assert recall_widths("one") is None


def test_an_interrupted_write_leaves_what_was_there(folder, monkeypatch):
    remember_widths("one", (8, 16))

    def fail(*_):
        raise OSError("no space left")

    monkeypatch.setattr(kept_widths.os, "replace", fail)
    remember_widths("one", (4, 8))
    assert recall_widths("one") == (8, 16)
    assert os.listdir(folder) == [FILE]


@pytest.mark.parametrize("given", ["", "relative/cache"])
def test_without_a_usable_variable_it_is_the_home_folder(tmp_path, monkeypatch, given):
    monkeypatch.setenv("XDG_CACHE_HOME", given)
    monkeypatch.setattr(Path, "home", lambda: tmp_path)
    remember_widths("one", (8, 16))
    assert json.loads((tmp_path / ".cache" / "slimnet" / FILE).read_text()) == {"one": [8, 16]}


def test_no_home_folder_is_no_trouble(monkeypatch):
    def fail():
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setattr(Path, "home", fail)
    remember_widths("one", (8, 16))
    assert recall_widths("one") is None


@pytest.fixture
def blocks(monkeypatch):
    """Timers of a machine that computes in blocks of this many channels; which one is a list."""
    sizes = [16]
    made = []

    def pair_timer(width, runtime, threads):
        made.append(width)
        calls = iter(range(10**6))
        rounds = paying_widths.ROUNDS
        return lambda: float(-(-width // sizes[(next(calls) // rounds) % len(sizes)]))

    monkeypatch.setattr(paying_widths, "pair_timer", pair_timer)
    return sizes, made


def test_widths_are_measured_once_per_machine(folder, blocks):
    _, made = blocks
    first = measure_paying_widths("onnxruntime-cpu", 1)
    assert first == tuple(range(16, 129, 16))
    assert len(made) == 32
    assert measure_paying_widths("onnxruntime-cpu", 1) == first
    assert len(made) == 32
    assert measure_paying_widths("onnxruntime-cpu", 2) == first
    assert len(made) == 64


def test_what_does_not_repeat_is_not_kept(folder, blocks):
    sizes, made = blocks
    sizes[:] = [16, 32]  # another answer every time; the quickest rounds of all decide
    assert measure_paying_widths("onnxruntime-cpu", 1) == (32, 64, 96, 128)
    assert not folder.exists()
    sizes[:] = [8, 16, 16]  # the second and third time alike
    assert measure_paying_widths("onnxruntime-cpu", 1) == tuple(range(16, 129, 16))
    assert len(made) == 64
    assert folder.exists()


def test_a_busy_moment_does_not_change_the_typical_time():
    rounds = [[1.0, 9.0], [9.0, 2.0], [9.0, 9.0], [1.0, 2.0], [9.0, 2.0]]
    assert paying_widths._typical(rounds) == [1.0, 2.0]
