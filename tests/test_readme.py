"""Every command and every Python block of the README is run, in its order, in one folder.

The folder holds what examples may name: model.pt (a whole pickled network), weights.pt (its state
dict), arch.py (``network()`` builds it), data.npz, and the image folders train/ and val/. A block
whose first line is ``# NAME.toml``, ``.py`` or ``.sh`` is written to that file instead of being
run; the shell script is run with goals that are met, and missed. A command whose output is shown
as "slimnet: error: ..." must fail with just that line. Lines that begin with ``python3 -m venv``
install slimnet; .ci/run runs them.
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
BLOCK = re.compile(r"^```(\w+)[^\n]*\n(.*?)^```$", re.MULTILINE | re.DOTALL)
FILE_NAME = re.compile(r"# ([\w-]+\.(?:toml|py|sh))\n")
ERROR = "slimnet: error: "
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
    """Every (kind, subject, text) to do: ("command", line, error line or ""), ("python", "",
    script), ("file", name, content)."""
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
                    told = following if following.startswith(ERROR) else ""
                    items.append(("command", command, told))
    return items


ITEMS = items_of(README.read_text(encoding="utf-8")) if README.is_file() else []


def quadrants(count: int, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Noise (count, 3, 32, 32) uint8 with one bright quadrant, and which one it is."""
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


def execute(words, folder):
    place = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])
    return subprocess.run(
        words, cwd=folder, env={**os.environ, "OMP_NUM_THREADS": "1", "PATH": place},
        capture_output=True, encoding="utf-8", check=False, timeout=280,
    )  # fmt: skip


def test_readme_shows_commands_and_python():
    assert README.is_file(), "the README is missing"
    kinds = [kind for kind, _, _ in ITEMS]
    assert "command" in kinds
    assert "python" in kinds


@pytest.mark.parametrize(
    ("kind", "subject", "text"), ITEMS, ids=[f"{kind} {subject}" for kind, subject, _ in ITEMS]
)
def test_example_works(kind, subject, text, folder, monkeypatch):
    if kind == "file":
        (folder / subject).write_text(text, encoding="utf-8")
        return
    words = shlex.split(subject, comments=True)
    if words[:2] == ["slimnet", "demo"]:  # test_demo.py runs it
        monkeypatch.setattr(demo, "run_demo", lambda folder: None)
        assert cli.run(words[1:]) == 0
        return
    done = execute([sys.executable, "-c", text] if kind == "python" else words, folder)
    if kind == "command" and text:
        assert (done.returncode, done.stderr.strip()) == (2, text.strip())
    else:
        assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    ("more", "code", "told", "troubles"),
    [
        ("--min-speedup 0.001", 0, "All 2 goals were met. Removed", ["0", "0"]),
        ("--min-speedup 0.001 --max-params 1", 3, "MISSED: max-params (wanted at most 1",
         ["1", "0"]),
        ("--max-drop abc", 2, "no result (exit code 2)", ["0", "1"]),
    ],
)  # fmt: skip
def test_the_pipeline_script_tells_by_exit_code_summary_and_junit(
    more, code, told, troubles, folder
):
    ((name, text),) = [(i[1], i[2]) for i in ITEMS if i[0] == "file" and i[1].endswith(".sh")]
    (folder / name).write_text(text, encoding="utf-8")
    for left in ("slimnet.xml", "slimnet.md"):
        (folder / left).unlink(missing_ok=True)
    quick = ["--latency-samples", "10", "--latency-batch", "1"]
    done = execute(["sh", name, *more.split(), *quick], folder)
    assert done.returncode == code, done.stderr
    suites = ElementTree.parse(folder / "slimnet.xml").getroot()
    assert [suites.get("failures"), suites.get("errors")] == troubles
    assert told in (folder / "slimnet.md").read_text(encoding="utf-8").replace("\\", "")
    assert ("do not merge" in done.stdout) == (code != 0)
    assert (folder / "slim" / "report.json").is_file()


def test_the_line_that_ci_runs_is_there_once():
    wanted = re.search(r"grep -E '(.+)' README\.md", (ROOT / ".ci" / "run").read_text())
    lines = README.read_text(encoding="utf-8").splitlines()
    assert len([line for line in lines if re.search(wanted[1], line)]) == 1


def test_links_and_pictures_lead_somewhere():
    text = README.read_text(encoding="utf-8")
    headings = re.findall(r"^#+ (.+)$", BLOCK.sub("", text), re.MULTILINE)
    anchors = {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}
    links = re.findall(r"\]\((?!https:)([^)]+)\)", text)
    assert len(links) > 5
    for link in links:
        assert (link[1:] in anchors) if link[0] == "#" else (ROOT / link).is_file(), link


def test_the_first_table_repeats_what_the_later_ones_say():
    tables = [
        [[cell.strip() for cell in line.strip("|").split("|")] for line in table.splitlines()]
        for table in re.findall(r"(?:^\|.*\n)+", README.read_text(encoding="utf-8"), re.MULTILINE)
    ]
    first = next(table for table in tables if table[0][0] == "network")
    latency = {row[0]: row[2:7] for table in tables for row in table if row[1:2] == ["latency"]}
    peers = {row[0]: row[1].split(",")[0] for table in tables for row in table
             if table[0][1].startswith("best of torch-pruning")}  # fmt: skip
    assert first[0][3] == "best of torch-pruning"
    assert len(first) == 6
    for name, weights, paper, peer, *others in first[2:]:
        key = name.lower().replace(" ", "").replace("-", "")
        assert latency[key] == [weights, paper, *others]
        assert peers[key] == peer


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
