"""The composite action and the guide's pipelines are read, and the action's steps are run."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
from dataclasses import fields
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
import torch

from slimnet import cli
from slimnet.options import Options

ROOT = Path(__file__).parents[1]
ACTION = ROOT / ".github" / "actions" / "slimnet" / "action.yml"
GUIDE = (ROOT / "slimnet" / "GUIDE.md").read_text(encoding="utf-8")
PIPELINES = dict(re.findall(r"^```yaml\n# (\S+)\n(.*?)^```$", GUIDE, re.MULTILINE | re.DOTALL))
QUICK = "--confidence 0.5\n--step 4 --oracle-k 2 --latency-samples 10 --latency-batch 1"


def yaml(text: str):
    """Read the part of YAML that is used here: maps, lists, |, and text, quoted or not."""
    lines = [line for line in text.splitlines() if line.strip() and line.strip()[0] != "#"]
    assert "\t" not in text
    return block(lines, indent(lines[0]))


def indent(line: str) -> int:
    return len(line) - len(line.lstrip())


def block(lines: list[str], depth: int):
    """Take a map or a list at this depth off the front of the lines."""
    if lines[0].lstrip().startswith("- "):
        found: list = []
        while lines and indent(lines[0]) == depth and lines[0].lstrip().startswith("- "):
            lines[0] = lines[0].replace("- ", "  ", 1)
            is_map = re.match(r"[\w-]+:( |$)", lines[0].strip())
            found.append(block(lines, depth + 2) if is_map else scalar(lines.pop(0).strip()))
        return found
    mapping: dict = {}
    while lines and indent(lines[0]) == depth and not lines[0].lstrip().startswith("- "):
        key, value = re.fullmatch(r"([\w-]+):(?: (.*))?", lines.pop(0).strip()).groups("")
        assert key not in mapping
        mapping[key] = content(value, lines, depth)
    return mapping


def content(value: str, lines: list[str], depth: int):
    if value == "|":
        inner, taken = indent(lines[0]), []
        while lines and indent(lines[0]) > depth:
            taken.append(lines.pop(0)[inner:])
        return "\n".join(taken) + "\n"
    if value:
        return scalar(value)
    assert indent(lines[0]) > depth, "an empty value"
    return block(lines, indent(lines[0]))


def scalar(text: str):
    if text.startswith('"'):
        assert text.endswith('"')
        return text[1:-1]
    if text.startswith("["):
        return [part.strip() for part in text[1:-1].split(",")]
    assert ": " not in text, text
    assert " #" not in text, text
    return text


def test_the_reader_reads():
    text = 'a:\n  - b: "1"\n    c: |\n      x\n       y\n  - d: [e, f]\n# no\ng: ${{ h }}\n'
    wanted = {"a": [{"b": "1", "c": "x\n y\n"}, {"d": ["e", "f"]}], "g": "${{ h }}"}
    assert yaml(text) == wanted


@pytest.fixture(scope="module")
def action():
    return yaml(ACTION.read_text(encoding="utf-8"))


def test_the_action_has_shell_steps_only(action):
    assert action["runs"]["using"] == "composite"
    for step in action["runs"]["steps"]:
        assert step["shell"] == "bash"
        assert "uses" not in step
        assert "${{" not in step["run"], "an input in a script could hold code"
    for described in action["inputs"].values():
        assert described["description"]
        assert ("default" in described) != (described.get("required") == "true")


def test_inputs_used_are_inputs_declared(action):
    given = " ".join(str(step.get("env", "")) for step in action["runs"]["steps"])
    assert set(re.findall(r"inputs\.([\w-]+)", given)) == set(action["inputs"])


def test_pipelines_of_the_guide_use_existing_inputs_and_options(action):
    assert set(PIPELINES) == {".github/workflows/slimnet.yml", ".gitlab-ci.yml"}
    job = yaml(PIPELINES[".github/workflows/slimnet.yml"])["jobs"]["slimnet"]
    step = job["steps"][-1]
    assert (ROOT / step["uses"] / "action.yml").is_file()
    required = {name for name, of in action["inputs"].items() if of.get("required") == "true"}
    assert required <= set(step["with"]) <= set(action["inputs"])
    job = yaml(PIPELINES[".gitlab-ci.yml"])["slimnet"]
    words = shlex.split(job["script"][-1])
    own = {"--data", "--out", "--summary", "--junit", "--json"}
    known = own | {"--" + option.name.replace("_", "-") for option in fields(Options)}
    assert {word for word in words if word.startswith("--")} <= known
    assert job["artifacts"]["reports"]["junit"] in words


# python3 -m venv FOLDER, without the minutes that it takes; pip says what it was given, and slimnet
# writes it down, for cli.run to do it
STAND_INS = {
    "python3": '#!/bin/sh\nmkdir -p "$3/bin"\ncd "${0%/*}" && cp pip slimnet "$3/bin"\n',
    "pip": '#!/bin/sh\necho pip "$@"\n',
    "slimnet": '#!/bin/sh\nprintf "%s\\n" "$@" > words\nexit "$CODE"\n',
}


def run_steps(action, inputs, folder, code):
    """Run the action as a runner would, with a slimnet that ends with this code.

    Return the words that slimnet was given.
    """
    (folder / "bin").mkdir()
    for name, text in STAND_INS.items():
        (folder / "bin" / name).write_text(text)
        (folder / "bin" / name).chmod(0o755)
    given = {name: described.get("default") for name, described in action["inputs"].items()}
    given |= inputs
    environment = {
        **os.environ, "PATH": f"{folder / 'bin'}{os.pathsep}{os.environ['PATH']}",
        "RUNNER_TEMP": str(folder / "runner"), "GITHUB_ACTION_PATH": str(ACTION.parent),
        "GITHUB_STEP_SUMMARY": str(folder / "summary.md"), "CODE": str(code),
    }  # fmt: skip
    for step in action["runs"]["steps"]:
        (folder / "step.sh").write_text(step["run"])
        own = {
            name: re.sub(r"\$\{\{ inputs\.([\w-]+) \}\}", lambda found: given[found[1]], text)
            for name, text in step.get("env", {}).items()
        }
        done = subprocess.run(
            ["bash", "--noprofile", "--norc", "-eo", "pipefail", str(folder / "step.sh")],
            cwd=folder, env=environment | own, capture_output=True, encoding="utf-8",
            check=False, timeout=200,
        )  # fmt: skip
        if done.returncode:
            break
        if step["name"] == "Install slimnet":
            source = Path(done.stdout.split()[-1])
            assert (source / "pyproject.toml").is_file()
    assert done.returncode == code, done.stderr
    return (folder / "words").read_text().splitlines()


@pytest.mark.parametrize(
    ("goal", "code", "failures"), [("--max-params 100000", 0, "0"), ("--max-bytes 1", 3, "1")]
)
def test_the_action_slims_and_fails_where_a_goal_is_missed(
    goal, code, failures, action, trained, tmp_path, monkeypatch, capsys
):
    network, splits = trained
    torch.save(network, tmp_path / "a network.pt")
    batches = [b for s in (splits.calibration, splits.selection, splits.test) for b in s.batches]
    images, labels = (torch.cat([batch[i] for batch in batches]).numpy() for i in (0, 1))
    np.savez(tmp_path / "data.npz", images=images, labels=labels)
    inputs = {"model": "a network.pt", "data": "data.npz", "goals": f"{QUICK} {goal}\n"}
    monkeypatch.chdir(tmp_path)
    assert cli.run(run_steps(action, inputs, tmp_path, code)) == code
    assert "loading ..." not in capsys.readouterr().err
    suites = ElementTree.parse(tmp_path / "slimnet.xml").getroot()
    assert suites.get("failures") == failures
    cases = {case.get("name") for case in suites.iter("testcase")}
    assert cases == {goal.split()[0][2:], "budget", "proof"}
    summary = (tmp_path / "summary.md").read_text(encoding="utf-8")
    assert ("MISSED" in summary) == (code == 3)
    assert (tmp_path / "slim" / "slim.onnx").is_file()


def test_goals_of_the_action_are_words_never_code(action, tmp_path, monkeypatch):
    inputs = {"model": "m.pt", "data": "d.npz", "goals": "$(touch x) `touch y`; touch z"}
    monkeypatch.chdir(tmp_path)
    assert cli.run(run_steps(action, inputs, tmp_path, 2)) == 2
    assert not {"x", "y", "z"} & {path.name for path in tmp_path.iterdir()}
    assert ElementTree.parse(tmp_path / "slimnet.xml").getroot().get("errors") == "1"
