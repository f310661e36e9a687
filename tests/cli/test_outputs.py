"""What a pipeline reads: exit code, stdout, and the files that it asked for, whatever happens."""

import errno
import io
import json
import os
import re
import sys
from pathlib import Path
from types import SimpleNamespace
from xml.etree import ElementTree

import numpy as np
import pytest
import torch

import slimnet
from slimnet import cli
from slimnet.cli import outputs
from slimnet.cli.outputs import report_failure, report_result
from slimnet.errors import InputError, ProofError
from slimnet.options import ResultOptions
from slimnet.report.progress import TerminalProgress

ERROR = "slimnet: error: "
QUICK = "data = 'data.npz'\nconfidence = 0.5\noracle_k = 2\nstep = 4\nlatency_samples = 10\n"
QUICK += "latency_batch = [1]\n"
NOISY = "print('a network that talks')\n\ndef network():\n    return Sequential({})\n"


@pytest.fixture
def folder(trained, tmp_path, monkeypatch):
    """The working folder, with a network, its weights and code, data, and quick options."""
    network, splits = trained
    torch.save(network, tmp_path / "model.pt")
    torch.save(network.state_dict(), tmp_path / "weights.pt")
    layers = ", ".join(map(repr, network))
    (tmp_path / "arch.py").write_text("from torch.nn import *\n" + NOISY.format(layers))
    batches = [b for s in (splits.calibration, splits.selection, splits.test) for b in s.batches]
    images, labels = (torch.cat([batch[i] for batch in batches]).numpy() for i in (0, 1))
    np.savez(tmp_path / "data.npz", images=images, labels=labels)
    (tmp_path / "slimnet.toml").write_text(QUICK)
    for name in ("FORCE_COLOR", "TTY_COMPATIBLE", "GITHUB_ACTIONS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_json_to_stdout_stands_there_alone_and_a_miss_keeps_the_files(folder, capsys):
    words = ["compress", "weights.pt", "--arch", "arch.py:network", "--json", "-"]
    assert cli.run([*words, "--max-params", "1", "--max-bytes", "999999", "--summary", "s.md"]) == 3
    told = capsys.readouterr()
    assert told.out == (folder / "slim" / "report.json").read_text(encoding="utf-8")
    goals = [(goal["name"], goal["met"]) for goal in json.loads(told.out)["goals"]]
    assert goals == [("max_params", False), ("max_bytes", True)]
    for words in ("MISSED: max-params", "a network that talks", "conv weights", "Written to slim/"):
        assert words in told.err
    assert (folder / "slim" / "slim.onnx").is_file()
    assert "MISSED" in (folder / "slim" / "report.html").read_text(encoding="utf-8")
    assert "MISSED" in (folder / "s.md").read_text(encoding="utf-8")


def test_quiet_is_one_line_and_a_run_against_its_own_baseline_meets_it(folder, capsys):
    assert cli.run(["compress", "model.pt", "--quiet", "--json", "copy.json"]) == 0
    told = capsys.readouterr()
    assert told.err == ""
    assert told.out.startswith("Removed ")
    assert told.out.count("\n") == 1
    report = folder / "slim" / "report.json"
    assert (folder / "copy.json").read_bytes() == report.read_bytes()
    (folder / "before.md").write_text("# before\n")
    words = ["--baseline", "copy.json", "--max-regression", "100%", "--summary", "before.md"]
    assert cli.run(["compress", "model.pt", "--no-progress", *words]) == 0
    told = capsys.readouterr()
    assert told.err == ""
    assert "All 5 goals were met." in told.out
    assert "--baseline copy.json --max-regression 100" in json.loads(report.read_text())["command"]
    assert (folder / "before.md").read_text(encoding="utf-8").startswith("# before\n\n### slimnet")


def test_a_baseline_of_other_sizes_ends_the_run_before_the_search(folder, capsys):
    assert cli.run(["compress", "model.pt", "--quiet", "--no-repair", "--json", "old.json"]) == 0
    told = json.loads((folder / "old.json").read_text())
    told["original_size"]["parameters"] += 1
    (folder / "old.json").write_text(json.dumps(told))
    before = (folder / "slim" / "report.json").read_bytes()
    capsys.readouterr()
    words = ["--baseline", "old.json", "--junit", "j.xml"]
    assert cli.run(["compress", "model.pt", *words]) == 2
    assert (
        "the baseline must be of the same network; that of old.json had" in capsys.readouterr().err
    )
    assert (folder / "slim" / "report.json").read_bytes() == before
    assert [case.get("name") for case in junit_cases(folder)] == ["input"]


def junit_cases(folder):
    return list(ElementTree.parse(folder / "j.xml").getroot().iter("testcase"))


@pytest.mark.parametrize(
    ("error", "code", "name"),
    [
        (ProofError("outputs\ndiffer"), 4, "proof"),
        (InputError("the rule; got 5"), 2, "input"),
        (ZeroDivisionError("by zero"), 1, "run"),
        (KeyboardInterrupt(), 130, "run"),
    ],
)
@pytest.mark.parametrize("joined", [True, False])
def test_a_run_without_result_is_in_junit_and_summary(
    error, code, name, joined, tmp_path, monkeypatch, capsys
):
    def fail(*arguments, **options):
        raise error

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(slimnet, "compress", fail)
    words = ["--junit=j.xml"] if joined else ["--junit", "j.xml"]
    assert cli.run(["compress", "m.pt", "--data", "d", *words, "--summary", "s.md"]) == code
    told = capsys.readouterr()
    assert told.out == ""
    assert told.err.startswith(ERROR)
    (case,) = junit_cases(tmp_path)
    assert case.get("name") == name
    assert case.find("error").get("message") == told.err.removeprefix(ERROR).strip()
    assert f"exit code {code}" in (tmp_path / "s.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("wrong", ["--max-drop=abc", "--max-drp=5", "--max-regression=5%"])
def test_a_mistyped_option_is_in_junit_too(wrong, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert cli.run(["compress", "m.pt", "--junit", "j.xml", wrong]) == 2
    (case,) = junit_cases(tmp_path)
    assert case.find("error").get("message") in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ("--junit model.pt", "--junit 'model.pt' holds something else"),
        ("--json thesis.tex", "--json 'thesis.tex' holds something else"),
        ("--summary model.pt", "--summary 'model.pt' holds something else"),
        ("--summary report.xml", "--summary 'report.xml' holds something else"),
        ("--junit -", "only --json can go to stdout (-)"),
        ("--junit --quiet", "--junit '--quiet' is an option: name a file"),
        ("--json nowhere/r.json", "must be a file in an existing folder"),
        ("--junit .", "must be a file in an existing folder"),
        (f"--junit {'x' * 300}", "cannot be used (File name too long)"),
        ("--summary=", "--summary '' must be a file"),
        ("--junit old/j.xml", "lies in a result of slimnet"),
        ("--junit slim/j.xml", "lies in a result of slimnet"),
        ("--junit new --out new", "--junit 'new' is where the output folder new comes"),
        ("--summary new --out new/deep", "is where the output folder new/deep comes"),
        ("--junit x --json ./x", "--junit and --json must be different files; got x and ./x"),
    ],
)
def test_files_of_others_are_left_alone_before_any_work(words, told, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(slimnet, "compress", None)  # it must not get so far
    (tmp_path / "model.pt").write_bytes(b"PK\0\0")
    (tmp_path / "thesis.tex").write_text("chapter 1")
    (tmp_path / "report.xml").write_text("<?xml version='1.0'?>")
    for name in ("old", "slim"):
        (tmp_path / name).mkdir()
    (tmp_path / "old" / "plan.json").write_text("{}")
    before = {p: p.read_bytes() for p in tmp_path.rglob("*") if p.is_file()}
    assert cli.run(["compress", "model.pt", "--data", "d", *words.split()]) == 2
    assert told in capsys.readouterr().err
    after = {p: p.read_bytes() for p in tmp_path.rglob("*") if p.is_file() and p.name != "x"}
    assert after == before


def test_earlier_files_are_replaced_and_pipes_and_links_stay_what_they_are(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    reader = os.open(tmp_path / "pipe", os.O_RDONLY | os.O_NONBLOCK)
    report_failure(ResultOptions(junit=str(tmp_path / "pipe")), "no", 2)
    assert os.read(reader, 9999).startswith(b"<?xml")
    os.close(reader)
    assert (tmp_path / "pipe").is_fifo()
    (tmp_path / "link.xml").symlink_to(tmp_path / "j.xml")
    for message in ("first", "second"):
        report_failure(ResultOptions(junit=str(tmp_path / "link.xml")), message, 2)
    assert (tmp_path / "link.xml").is_symlink()
    (case,) = junit_cases(tmp_path)
    assert case.find("error").text == "second"


class Terminal(io.StringIO):
    def isatty(self):
        return True


def shown(stream, monkeypatch):
    """What the progress writes to such a stderr."""
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.setattr(sys, "stderr", stream)
    with TerminalProgress(5.0) as progress:
        progress("loading")
    return stream.getvalue()


def test_bars_need_a_terminal_and_colours_obey_no_color(monkeypatch):
    for name in ("NO_COLOR", "FORCE_COLOR"):
        monkeypatch.delenv(name, raising=False)
    assert shown(io.StringIO(), monkeypatch) == "loading ...\n"
    colour = re.compile(r"\x1b\[(?:[\d;]*;)?(?:3|4|9)\d[\d;]*m")
    assert colour.search(shown(Terminal(), monkeypatch))
    monkeypatch.setenv("NO_COLOR", "1")
    drawn = shown(Terminal(), monkeypatch)
    assert "loading" in drawn
    assert not colour.search(drawn)
    monkeypatch.delenv("NO_COLOR")
    monkeypatch.setenv("FORCE_COLOR", "1")  # build servers set it
    assert shown(io.StringIO(), monkeypatch) == "loading ...\n"


def test_a_full_disk_under_the_log_does_not_deny_the_result(monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(outputs, "_printed", full)
    with pytest.raises(InputError, match="No space left on device; slim is complete"):
        report_result(ResultOptions(), SimpleNamespace(report=None, folder=Path("slim")))
