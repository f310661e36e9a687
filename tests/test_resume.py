"""kill -9 at any moment, the same command again: it ends as if nothing had happened, to the byte.

``pytest tests/test_resume.py --kills 30`` also kills at 30 random moments.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch

COMMAND = [
    str(Path(sys.executable).with_name("slimnet")), "compress", "model.pt", "--data", "data.npz",
    "--max-drop", "20", "--objective", "params", "--oracle-k", "8",
    "--latency-samples", "2", "--latency-batch", "1",
]  # fmt: skip
SAME = ("original.onnx", "plan.json", "slim.onnx", "slim.pt2", "slim.safetensors")
ENTRIES = 40  # of the journal, about
PREVIOUS = '{"slimnet_version": "0"}'


def pytest_generate_tests(metafunc):
    if "kill" in metafunc.fixturenames:
        metafunc.parametrize("kill", range(metafunc.config.getoption("--kills")))


@pytest.fixture(scope="module")
def files(trained, tmp_path_factory):
    folder = tmp_path_factory.mktemp("files")
    network, splits = trained
    torch.save(network, folder / "model.pt")
    batches = [b for s in (splits.calibration, splits.selection, splits.test) for b in s.batches]
    images, labels = (torch.cat(part).numpy() for part in zip(*batches, strict=True))
    np.savez(folder / "data.npz", images=images, labels=labels)
    return folder


def start(folder, files, *more):
    folder.mkdir(exist_ok=True)
    for name in ("model.pt", "data.npz"):
        (folder / name).write_bytes((files / name).read_bytes())
    with (folder / "stderr").open("w") as stderr:
        return subprocess.Popen(
            [*COMMAND, *more], cwd=folder, stdout=subprocess.DEVNULL, stderr=stderr,
            env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONIOENCODING": "utf-8"},
        )  # fmt: skip


def finish(folder, files, *more):
    """Run the command to its end; return what it told, and the artefacts."""
    assert start(folder, files, *more).wait(timeout=200) == 0, told(folder)
    there = {path.name for path in folder.iterdir()}
    assert there == {"data.npz", "model.pt", "slim", "stderr"}, "nothing else is left"
    return told(folder), {name: (folder / "slim" / name).read_bytes() for name in SAME}


def kill_when(folder, files, moment):
    """Start the command, kill it as soon as ``moment()`` is true, and count its finished steps."""
    run = start(folder, files)
    while run.poll() is None and not moment():
        time.sleep(0.002)
    run.kill()
    run.wait()
    return journal(folder).count(b'["step",')


def told(folder):
    return (folder / "stderr").read_text(encoding="utf-8")


def journal(folder):
    file = folder / ".slim.partial" / "search.jsonl"
    return file.read_bytes() if file.exists() else b""


def resumed(steps):
    return f"resuming after step {steps} of an interrupted run ...\n"


@pytest.fixture(scope="module")
def undisturbed(files, tmp_path_factory):
    started = time.perf_counter()
    text, artefacts = finish(tmp_path_factory.mktemp("undisturbed"), files)
    assert "resuming" not in text
    return artefacts, time.perf_counter() - started


def test_killed_twice_it_ends_the_same_and_with_other_options_afresh(files, undisturbed, tmp_path):
    here = tmp_path / "here"
    (here / "slim").mkdir(parents=True)
    (here / "slim" / "report.json").write_text(PREVIOUS)
    before = 0
    for moment in (
        lambda: journal(here).count(b"\n") > 6,
        lambda: "exporting and proving" in told(here),
    ):
        steps = kill_when(here, files, moment)
        assert steps > before
        assert (resumed(before) in told(here)) == (before > 0)
        assert [path.name for path in (here / "slim").iterdir()] == ["report.json"]
        assert (here / "slim" / "report.json").read_text() == PREVIOUS
        if not before:
            shutil.copytree(here, tmp_path / "other")
        before = steps
    text, artefacts = finish(here, files)
    assert resumed(before) in text
    assert artefacts == undisturbed[0]
    notes = json.loads((here / "slim" / "report.json").read_text())["notes"]
    assert any(f"resumed after step {before};" in note for note in notes)
    assert "resuming" not in finish(tmp_path / "other", files, "--seed", "1")[0]


def test_killed_at_a_random_moment_it_ends_the_same(files, undisturbed, tmp_path, kill):
    artefacts, seconds = undisturbed
    here, share = tmp_path / "here", random.Random(kill).random()
    end = time.perf_counter() + share * seconds
    moments = (  # the search is short beside the rest
        lambda: journal(here).count(b"\n") > share * ENTRIES,
        lambda: time.perf_counter() > end,
    )
    steps = kill_when(here, files, moments[kill % 2])
    print(f"killed after {steps} steps; there were {sorted(os.listdir(here))}")
    text, again = finish(here, files)
    assert (resumed(steps) in text) == (steps > 0)
    assert again == artefacts
