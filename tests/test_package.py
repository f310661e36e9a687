"""What is published: a wheel and an sdist that hold all they need and declare what they import."""

from __future__ import annotations

import ast
import os
import re
import shutil
import subprocess
import sys
import tarfile
import zipfile
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SOURCES = ("pyproject.toml", "README.md", "LICENSE", "slimnet")
# what the demo alone needs stands in an extra of its own
EXTRA = {"sklearn"}
SMALL_RUN = """
import sys, torch, slimnet
from torch import nn
assert slimnet.__file__.startswith(sys.argv[1]), slimnet.__file__
torch.manual_seed(0)
images = torch.rand(300, 3, 8, 8)
model = nn.Sequential(
    nn.Conv2d(3, 8, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 4)
).eval()
with torch.no_grad():
    model[4].bias -= model(images).mean(0)
    labels = model(images).argmax(1)
data = torch.utils.data.TensorDataset(images, labels)
result = slimnet.compress(
    model, data, 30, out="slim", confidence=0.5, objective="params", oracle_k=2,
    latency_samples=2, latency_batch=(1,)
)
print(result.report.slim_size.parameters)
"""


def run(*words: object, **options: object) -> str:
    done = subprocess.run([str(word) for word in words], capture_output=True, text=True, **options)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """A wheel and an sdist, made from a copy, so that nothing is left behind in the sources."""
    folder = tmp_path_factory.mktemp("package")
    copy = folder / "sources"
    copy.mkdir()
    ignored = shutil.ignore_patterns("__pycache__")
    for name in SOURCES:
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, copy / name, ignore=ignored)
        else:
            shutil.copy(ROOT / name, copy / name)
    run(sys.executable, "-m", "build", "--no-isolation", "--outdir", folder / "dist", copy)
    return next((folder / "dist").glob("*.whl")), next((folder / "dist").glob("*.tar.gz"))


def test_the_wheel_holds_every_file_of_the_package(built):
    held = {name for name in zipfile.ZipFile(built[0]).namelist() if name.startswith("slimnet/")}
    wanted = {
        str(path.relative_to(ROOT))
        for path in (ROOT / "slimnet").rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    assert held == wanted
    assert "slimnet/py.typed" in held


def test_the_sdist_can_be_built_from(built, tmp_path):
    with tarfile.open(built[1]) as archive:
        archive.extractall(tmp_path, filter="data")
    (source,) = tmp_path.iterdir()
    run(sys.executable, "-m", "build", "--no-isolation", "--wheel", "--outdir", tmp_path, source)
    names = [sorted(zipfile.ZipFile(wheel).namelist())
             for wheel in (built[0], next(tmp_path.glob("*.whl")))]  # fmt: skip
    assert names[0] == names[1]


def test_the_installed_wheel_runs_in_an_empty_folder(built, tmp_path):
    site, empty = tmp_path / "site", tmp_path / "empty"
    empty.mkdir()
    run(sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--target", site, built[0])
    alone = {"cwd": empty, "env": {**os.environ, "PYTHONPATH": str(site)}}
    assert int(run(sys.executable, "-c", SMALL_RUN, site, **alone)) < 260
    assert (empty / "slim" / "slim.onnx").is_file()
    assert "compress" in run(sys.executable, "-m", "slimnet", "--help", **alone)


def test_every_import_is_declared(built):
    wheel = zipfile.ZipFile(built[0])
    (metadata,) = (name for name in wheel.namelist() if name.endswith("/METADATA"))
    needs = re.findall(r"^Requires-Dist: ([\w-]+)", wheel.read(metadata).decode(), re.MULTILINE)
    declared = {need.lower().replace("_", "-") for need in needs}
    imported = {
        name.split(".")[0]
        for path in (ROOT / "slimnet").rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, (ast.Import, ast.ImportFrom))
        for name in ([a.name for a in node.names] if isinstance(node, ast.Import)
                     else [] if node.level else [node.module])
    } - {"slimnet", "__future__"} - set(sys.stdlib_module_names)  # fmt: skip
    distributions = packages_distributions()
    undeclared = {
        name
        for name in imported - EXTRA
        if not {d.lower().replace("_", "-") for d in distributions.get(name, [name])} & declared
    }
    assert not undeclared
