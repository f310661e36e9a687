"""Which widths pay: their arithmetic, their measurement, and its cache, which fails no run."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from slimnet.timing import paying_widths
from slimnet.timing.machine_cache import remember
from slimnet.timing.paying_widths import (
    FILE,
    choose_widths,
    measure_paying_widths,
    narrow_widths,
    next_lower_width,
    recall_widths,
    width_in_effect,
)
from slimnet.timing.pytorch import PyTorch
from slimnet.timing.runtimes import RUNTIMES


def test_a_staircase_pays_at_its_edges():
    widths = list(range(32, 0, -4))
    times = [-(-w // 8) * 1.0 for w in widths]  # computed in blocks of 8
    assert choose_widths(widths, times) == (8, 16, 24, 32)


@pytest.mark.parametrize("noise", [0.0, 0.03, -0.03])
def test_where_time_does_not_depend_on_the_width_none_is_better_than_another(noise):
    widths = list(range(32, 0, -4))
    times = [1 + noise * (-1) ** number for number in range(len(widths))]
    assert choose_widths(widths, times) == tuple(range(4, 33, 4))


def test_a_slope_pays_everywhere():
    widths = list(range(32, 0, -4))
    assert choose_widths(widths, [float(w) for w in widths]) == tuple(range(4, 33, 4))


@pytest.mark.parametrize(
    ("width", "paying", "lower"),
    [(20, (8, 16, 32), 16), (16, (8, 16, 32), 8), (8, (8, 16), 0), (200, (16, 112, 128), 192),
     (192, (16, 112, 128), 176), (129, (16, 112, 128), 128), (7, (), 6)],
)  # fmt: skip
def test_next_lower_width(width, paying, lower):
    assert next_lower_width(width, paying) == lower


@pytest.mark.parametrize(
    ("width", "effect"), [(1, 8), (8, 8), (9, 16), (17, 32), (33, 48), (48, 48), (0, 0)]
)
def test_a_width_costs_as_much_as_the_next_one_that_pays(width, effect):
    assert width_in_effect(width, (8, 16, 32)) == effect
    assert width_in_effect(width, ()) == width


def test_below_one_block_inputs_count_in_fours():
    # of 16 inputs, 12 cost as many as 15, 8 as 11 and 4 as 7; of 8, 4 cost as many as 7
    assert narrow_widths((4, 16, 32, 48)) == ((4, 8, 16, 32, 48), (16, 32, 48))
    assert narrow_widths((8, 16, 24)) == ((8, 16, 24), (8, 16, 24))
    assert narrow_widths(()) == ((), ())


def remember_widths(machine, widths):
    remember(FILE, machine, widths)


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

    monkeypatch.setattr(os, "replace", fail)
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


def test_widths_that_do_not_repeat_are_those_of_all_tries(folder, blocks):
    runtime, sizes, made = blocks
    sizes[:] = [16, 32]  # another answer every time; the quickest rounds of all decide
    assert measure_paying_widths(runtime, 1) == (32, 64, 96, 128)
    assert measure_paying_widths(runtime, 1) == (32, 64, 96, 128)
    assert len(made) == 32, "a busy machine is not measured again either"
    sizes[:] = [8, 16, 16]  # the second and third time alike
    assert measure_paying_widths(runtime, 2) == tuple(range(16, 129, 16))


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
