"""The measurement of paying widths, and its cache, which can never make a run fail."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from slimnet.timing import paying_widths
from slimnet.timing.paying_widths import (
    FILE,
    measure_paying_widths,
    recall_widths,
    remember_widths,
)
from slimnet.timing.pytorch import PyTorch
from slimnet.timing.runtimes import RUNTIMES


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    return tmp_path / "slimnet"


def test_machines_stand_side_by_side_in_one_file(folder):
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

    monkeypatch.setattr(paying_widths.os, "replace", fail)
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
    """A runtime that computes in blocks of channels: their sizes in turn, and the widths timed."""
    sizes = [16]
    made = []

    class Blocks(PyTorch):
        def pair_timer(self, width, threads):
            made.append(width)
            calls = iter(range(10**6))
            rounds = paying_widths.ROUNDS
            return lambda: float(-(-width // sizes[(next(calls) // rounds) % len(sizes)]))

    return Blocks("blocks", "blocks-cpu", "cpu"), sizes, made


def test_widths_are_measured_once_per_machine(folder, blocks):
    runtime, _, made = blocks
    first = measure_paying_widths(runtime, 1)
    assert first == tuple(range(16, 129, 16))
    assert len(made) == 32
    assert measure_paying_widths(runtime, 1) == first
    assert len(made) == 32
    assert measure_paying_widths(runtime, 2) == first
    assert len(made) == 64


def test_widths_that_do_not_repeat_are_not_cached(folder, blocks):
    runtime, sizes, made = blocks
    sizes[:] = [16, 32]  # another answer every time; the quickest rounds of all decide
    assert measure_paying_widths(runtime, 1) == (32, 64, 96, 128)
    assert not folder.exists()
    sizes[:] = [8, 16, 16]  # the second and third time alike
    assert measure_paying_widths(runtime, 1) == tuple(range(16, 129, 16))
    assert len(made) == 64
    assert folder.exists()


def test_a_busy_moment_does_not_change_the_typical_time():
    rounds = [[1.0, 9.0], [9.0, 2.0], [9.0, 9.0], [1.0, 2.0], [9.0, 2.0]]
    assert paying_widths._typical(rounds) == [1.0, 2.0]


@pytest.mark.alone
def test_this_machines_paying_widths_are_sane():
    paying = measure_paying_widths(RUNTIMES["ort-cpu"], 1)
    assert paying == tuple(sorted(set(paying)))
    assert paying[-1] == 128
    assert paying[0] >= 4


def test_the_cache_of_earlier_versions_is_read(folder):
    folder.mkdir()
    machine = RUNTIMES["ort-cpu"].measured_on(1)
    (folder / "paying_widths_1.json").write_text(json.dumps({machine: [24, 128]}))
    assert measure_paying_widths(RUNTIMES["ort-cpu"], 1) == (24, 128)
