"""Run every command and every Python block of the README and the guide, in order, in one folder.

The folder holds the files that examples may name: model.pt (a whole pickled network), weights.pt
(its state dict), arch.py (``network()`` builds it), data.npz, and the image folders train/ and
val/. A block whose first line is ``# NAME.toml``, ``.py`` or ``.sh`` is written to that file
instead of being run. The shell script runs with a stand-in for slimnet. Then the command that it
gave is run, with goals that are met, and with goals that are missed.
A command with the output "slimnet: error: ..." must fail with exactly this line. Lines that begin
with ``python3 -m venv`` install slimnet; .ci/run runs the one with the tests.

Commands and Python run within this process, because torch takes seconds to import. The folder's
configuration asks for few timings.
"""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn
from torch.nn import functional

from slimnet import cli, demo

ROOT = Path(__file__).parents[1]
README = ROOT / "README.md"
GUIDE = ROOT / "slimnet" / "GUIDE.md"
MAX_README_LINES = 250
BLOCK = re.compile(r"^```(\w+)[^\n]*\n(.*?)^```$", re.MULTILINE | re.DOTALL)
FILE_NAME = re.compile(r"# ([\w-]+\.(?:toml|py|sh))\n")
ERROR = "slimnet: error: "
FEW_TIMINGS = "latency_samples = 10\nlatency_batch = [1]\n"
STAND_IN = '#!/bin/sh\nprintf "%s\\n" "$@" > words\nexit "$CODE"\n'
ARCHITECTURE = """
from torch import nn


def network(classes=4):
    return nn.Sequential(
        nn.Conv2d(3, 6, 3, stride=2, padding=1), nn.BatchNorm2d(6), nn.ReLU(),
        nn.Conv2d(6, 6, 3, stride=2, padding=1), nn.BatchNorm2d(6), nn.ReLU(),
        nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(24, classes),
    )
"""


def items_of(text: str) -> list[tuple[str, str, str]]:
    """Return (kind, subject, text) of every example, in order.

    These are ("command", line, error line or ""), ("python", "", script), ("file", name, content).
    """
    items = []
    for language, body in BLOCK.findall(text):
        name = FILE_NAME.match(body)
        if name and language in ("toml", "python", "sh"):
            items.append(("file", name[1], body))
        elif language == "python":
            items.append(("python", "", body))
        elif language in ("console", "sh", "bash", "shell"):
            lines = body.replace("\\\n", " ").splitlines()
            for line, following in zip(lines, [*lines[1:], ""], strict=True):
                command = line.removeprefix("$ ")
                if command.startswith("slimnet "):
                    error = following if following.startswith(ERROR) else ""
                    items.append(("command", command, error))
    return items


ITEMS = [item for page in (README, GUIDE) for item in items_of(page.read_text(encoding="utf-8"))]


def quadrants(count: int, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Return noise (count, 3, 32, 32) uint8 with one bright quadrant, and its number as label."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(count) % 4
    images = 90 * torch.rand(count, 3, 32, 32, generator=generator)
    for image, label in zip(images, labels.tolist(), strict=True):
        row, column = 16 * (label // 2), 16 * (label % 2)
        image[:, row : row + 16, column : column + 16] += 110
    return images.to(torch.uint8), labels


def train(network: nn.Module, images: torch.Tensor, labels: torch.Tensor) -> nn.Module:
    """Train for any preprocessing: pixels are scaled and shifted at random."""
    optimizer = torch.optim.Adam(network.parameters(), lr=0.01)
    inputs = images.float() / 255
    for _ in range(60):
        chosen = torch.randint(len(inputs), (48,))
        scale, shift = 0.5 + 4 * torch.rand(48, 1, 1, 1), 2 * torch.rand(48, 1, 1, 1) - 1.5
        optimizer.zero_grad()
        scores = network((inputs[chosen] + shift) * scale)
        functional.cross_entropy(scores, labels[chosen]).backward()
        optimizer.step()
    return network.eval()


def save_images(folder: Path, images: torch.Tensor, labels: torch.Tensor) -> None:
    for number, (image, label) in enumerate(zip(images, labels.tolist(), strict=True)):
        place = folder / f"class{label}"
        place.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image.permute(1, 2, 0).numpy()).save(place / f"{number:03}.png")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    here = tmp_path_factory.mktemp("readme")
    torch.manual_seed(0)
    (here / "arch.py").write_text(ARCHITECTURE)
    (here / "pyproject.toml").write_text(f"[tool.slimnet]\n{FEW_TIMINGS}")
    names: dict = {}
    exec(ARCHITECTURE, names)
    images, labels = quadrants(80, seed=1)
    network = train(names["network"](), images, labels)
    torch.save(network, here / "model.pt")
    torch.save(network.state_dict(), here / "weights.pt")
    save_images(here / "train", images, labels)
    images, labels = quadrants(160, seed=2)
    save_images(here / "val", images, labels)
    np.savez(here / "data.npz", images=images.permute(0, 2, 3, 1).numpy(), labels=labels.numpy())
    return here


@pytest.fixture
def here(folder, monkeypatch):
    """The folder, as the working folder, and on Python's path as for a script."""
    monkeypatch.chdir(folder)
    monkeypatch.syspath_prepend(str(folder))
    yield folder
    sys.modules.pop("arch", None)


@pytest.mark.parametrize("page", [README, GUIDE], ids=lambda page: page.name)
def test_each_page_shows_commands_and_python(page):
    kinds = [kind for kind, _, _ in items_of(page.read_text(encoding="utf-8"))]
    assert "command" in kinds
    assert "python" in kinds


def test_the_readme_is_short():
    assert len(README.read_text(encoding="utf-8").splitlines()) <= MAX_README_LINES


@pytest.mark.parametrize(
    ("kind", "subject", "text"), ITEMS, ids=[f"{kind} {subject}" for kind, subject, _ in ITEMS]
)
def test_example_works(kind, subject, text, here, monkeypatch, capsys):
    if kind == "file":
        more = FEW_TIMINGS if subject == "slimnet.toml" else ""
        (here / subject).write_text(text + more, encoding="utf-8")
        return
    if kind == "python":
        exec(compile(text, "example", "exec"), {"__name__": "__main__"})
        return
    words = shlex.split(subject, comments=True)[1:]
    if words[:1] == ["init"]:  # it refuses to hide this table
        (here / "pyproject.toml").unlink()
    if words[:1] == ["demo"]:  # test_demo.py runs it
        monkeypatch.setattr(demo, "run_demo", lambda folder: None)
    code, told = cli.run(words), capsys.readouterr().err
    if text:
        assert (code, told.strip()) == (2, text.strip())
    else:
        assert code == 0, told


@pytest.mark.parametrize(
    ("more", "code", "line", "troubles"),
    [
        ("--min-speedup 0.001", 0, "All 2 goals were met. Removed", ["0", "0"]),
        ("--min-speedup 0.001 --max-params 1", 3, "MISSED: max-params (wanted at most 1",
         ["1", "0"]),
        ("--max-drop abc", 2, "no result (exit code 2)", ["0", "1"]),
    ],
)  # fmt: skip
def test_the_pipeline_script_reports_by_exit_code_summary_and_junit(
    more, code, line, troubles, here, capsys
):
    ((name, text),) = [(i[1], i[2]) for i in ITEMS if i[0] == "file" and i[1].endswith(".sh")]
    (here / name).write_text(text, encoding="utf-8")
    for left in ("slimnet.xml", "slimnet.md"):
        (here / left).unlink(missing_ok=True)
    # parameters: which widths pay depends on the machine, and this network is narrow
    quick = ["--objective", "params", "--latency-samples", "10", "--latency-batch", "1"]
    (here / "bin").mkdir(exist_ok=True)
    (here / "bin" / "slimnet").write_text(STAND_IN)
    (here / "bin" / "slimnet").chmod(0o755)
    place = f"{here / 'bin'}{os.pathsep}{os.environ.get('PATH', '')}"
    done = subprocess.run(
        ["sh", name, *more.split(), *quick], env={**os.environ, "PATH": place, "CODE": str(code)},
        capture_output=True, encoding="utf-8", check=False, timeout=60,
    )  # fmt: skip
    assert done.returncode == code, done.stderr
    assert ("do not merge" in done.stdout) == (code != 0)
    words = (here / "words").read_text().splitlines()
    assert cli.run(words) == code, capsys.readouterr().err
    suites = ElementTree.parse(here / "slimnet.xml").getroot()
    assert [suites.get("failures"), suites.get("errors")] == troubles
    told = done.stdout + (here / "slimnet.md").read_text(encoding="utf-8").replace("\\", "")
    assert line in told
    assert (here / "slim" / "report.json").is_file()


def test_the_line_that_ci_runs_is_there_once():
    wanted = re.search(r"grep -E '(.+)' README\.md", (ROOT / ".ci" / "run").read_text())
    lines = README.read_text(encoding="utf-8").splitlines()
    assert len([line for line in lines if re.search(wanted[1], line)]) == 1


def anchors_of(page: Path) -> set[str]:
    """Return the anchors that GitHub gives the headings of a page."""
    text = BLOCK.sub("", page.read_text(encoding="utf-8"))
    headings = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("name", ["README.md", "slimnet/GUIDE.md", "benchmarks/README.md"])
def test_links_and_pictures_lead_somewhere(name):
    page = ROOT / name
    links = re.findall(r"\]\((?!https:)([^)]+)\)", page.read_text(encoding="utf-8"))
    assert len(links) > 5
    for link in links:
        file, _, anchor = link.partition("#")
        target = page.parent / file if file else page
        assert target.is_file(), link
        assert not anchor or anchor in anchors_of(target), link


def test_items_are_found_in_their_order():
    text = (
        "```sh\n$ slimnet demo there  # quick\nslimnet compress m.pt \\\n  --max-drop 5\n```\n"
        "```console\n$ slimnet compress no.pt\nslimnet: error: there is no file\nslimnet 0.1\n```\n"
        "```toml\n# slimnet.toml\ndata = 'val'\n```\n"
        "```python\nimport slimnet\n```\n```text\nslimnet compress in prose\n```\n"
    )
    assert items_of(text) == [
        ("command", "slimnet demo there  # quick", ""),
        ("command", "slimnet compress m.pt    --max-drop 5", ""),
        ("command", "slimnet compress no.pt", "slimnet: error: there is no file"),
        ("command", "slimnet 0.1", ""),
        ("file", "slimnet.toml", "# slimnet.toml\ndata = 'val'\n"),
        ("python", "", "import slimnet\n"),
    ]
