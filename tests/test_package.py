"""A wheel, built from the sdist, holds all it needs and declares what it imports."""

from __future__ import annotations

import ast
import re
import shutil
import subprocess
import sys
import zipfile
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SOURCES = ("pyproject.toml", "README.md", "LICENSE", "slimnet")
# what the demo alone needs stands in an extra of its own
EXTRA = {"sklearn"}


def run(*words: object, **options: object) -> str:
    done = subprocess.run([str(word) for word in words], capture_output=True, text=True, **options)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """A wheel that was built from the sdist; a copy of the sources, which stay as they are.

    .ci/run installs such a wheel and runs it in an empty folder.
    """
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
    assert len(list((folder / "dist").glob("*.tar.gz"))) == 1
    return next((folder / "dist").glob("*.whl"))


def test_the_wheel_holds_every_file_of_the_package(built):
    held = {name for name in zipfile.ZipFile(built).namelist() if name.startswith("slimnet/")}
    wanted = {
        str(path.relative_to(ROOT))
        for path in (ROOT / "slimnet").rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    assert held == wanted
    assert "slimnet/py.typed" in held


def test_every_import_is_declared(built):
    wheel = zipfile.ZipFile(built)
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
