"""``slimnet demo``: what a newcomer runs first does what it promises."""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
from pathlib import Path

import pytest

from slimnet.cli.app import run

COMMAND = str(Path(sys.executable).with_name("slimnet"))
MAX_SECONDS = 90

pytestmark = pytest.mark.alone


def cpu_seconds() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


@pytest.fixture(scope="module")
def demo(tmp_path_factory):
    """Its output, the seconds it takes one core that has nothing else to do, its folder."""
    here = tmp_path_factory.mktemp("demo")
    before = cpu_seconds()
    done = subprocess.run(
        [COMMAND, "demo", "try it"], cwd=here, env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True, encoding="utf-8", check=False, timeout=280,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done, cpu_seconds() - before, here / "try it"


@pytest.fixture(scope="module")
def report(demo):
    return json.loads((demo[2] / "slim" / "report.json").read_text(encoding="utf-8"))


def test_it_takes_less_than_a_minute_and_a_half(demo):
    assert demo[1] < MAX_SECONDS


def test_it_shows_the_very_command_and_its_table(demo, report):
    done, _, folder = demo
    assert "\n    $ slimnet compress model.pt --max-drop 5\n" in done.stdout
    table = done.stdout.partition("--max-drop 5\n")[2]
    assert f"{report['confirmation_drop']['slim_percent']:.2f} %" in table
    assert done.stdout.endswith("Written to slim/\n")
    lines = [line for line in done.stderr.splitlines() if not line.endswith(" ...")]
    assert [line.partition(" ")[0] for line in lines] == ["note:"]
    names = {entry.name for entry in folder.iterdir()}
    assert names == {"model.pt", "held_out.npz", "train.npz", "slimnet.toml", "slim"}
    assert report["settings"]["max_drop"] == 5


def test_most_of_the_conv_weights_go_within_five_points(report):
    before, after = (report[f"{name}_size"]["conv_weights"] for name in ("original", "slim"))
    assert after <= 0.4 * before
    assert report["verdict"] == "confirmed"
    drop = report["confirmation_drop"]
    assert drop["confidence"] == 0.95
    assert drop["points"] <= 5
    assert drop["original_percent"] > 95


def test_the_slim_network_is_measurably_faster(report):
    assert [entry["batch_size"] for entry in report["latency"]] == [1, 32]
    for entry in report["latency"]:
        assert entry["measurable"]
        assert entry["speedup_low"] > 1


@pytest.mark.parametrize("name", ["mine", "mine/model.pt", "mine/model.pt/deeper"])
def test_a_folder_of_the_users_keeps_its_model(name, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("slimnet.demo._train", None)  # it must not get so far
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "model.pt").write_bytes(b"months of training")
    (tmp_path / "mine" / "slimnet.toml").write_text("max_drop = 2\n")
    assert run(["demo", name]) == 2
    assert "internal" not in capsys.readouterr().err
    assert (tmp_path / "mine" / "model.pt").read_bytes() == b"months of training"
    assert (tmp_path / "mine" / "slimnet.toml").read_text() == "max_drop = 2\n"


def test_a_demo_that_was_ended_can_be_run_again(tmp_path, monkeypatch):
    def end(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr("slimnet.demo._train", lambda *_: None)
    monkeypatch.setattr("slimnet.demo.numpy.savez", end)
    for _ in range(2):
        assert run(["demo", str(tmp_path / "demo")]) == 130
