"""DESIGN.md's line: an item of slimnet imports only from items before it."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

import slimnet

PACKAGE = Path(slimnet.__file__).parent
ORDER = (
    "load", "data", "tasks", "execution", "groups", "saliency", "repair", "finetune", "timing",
    "search", "export", "report",
    "compress", "inspect", "compare", "verify", "apply", "bench", "init", "demo", "cli",
)  # fmt: skip
EVERYWHERE = ("errors", "records", "options")
# what may be imported, where that is less than "everything before it"; "" is slimnet/__init__.py
ONLY = {
    "errors": set(),
    "records": set(),
    "options": {"errors"},
    "demo": {"errors"},
    "": {*EVERYWHERE, *ORDER} - {"init", "demo", "cli"},
    "__main__": {"cli"},
}
ONLY_PLACE = {"torch_pruning": "groups", "typer": "cli"}


def item_of(module: str) -> str:
    """slimnet.data.arrays -> load; slimnet -> "" """
    return [*module.split("."), ""][1]


def imports_of(module: str, source: str, is_package: bool = False) -> list[tuple[str, str]]:
    """Every (module, name) that some source imports; name is "" for ``import module``."""
    found = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found += [(alias.name, "") for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            parents = module.split(".") if node.level else []
            start = ".".join(parents[: len(parents) - node.level + is_package])
            base = ".".join(part for part in (start, node.module or "") if part)
            if base == "slimnet":  # from slimnet import load: the item is the name
                found += [(f"slimnet.{alias.name}", "") for alias in node.names]
            else:
                found += [(base, alias.name) for alias in node.names]
    return found


def problems(module: str, source: str, is_package: bool = False) -> list[str]:
    here = item_of(module)
    if here not in (*EVERYWHERE, *ORDER, *ONLY):
        return [f"{module} stands nowhere in the line"]
    before = {*EVERYWHERE, *ORDER[: ORDER.index(here)]} if here in ORDER else set()
    allowed = ONLY.get(here, before) | {here}
    found = []
    for target, name in imports_of(module, source, is_package):
        top, place = target.split(".")[0], item_of(target)
        if top in ONLY_PLACE and here != ONLY_PLACE[top]:
            found.append(f"{module} imports {top}, which only {ONLY_PLACE[top]} may")
        if top != "slimnet":
            continue
        if place not in allowed:
            found.append(f"{module} imports {place or 'slimnet'}, which is not before {here}")
        private = [part for part in (*target.split("."), name) if part.startswith("_")]
        if private and place != here:
            found.append(f"{module} imports the private {'.'.join(private)} of {place}")
    return found


def files() -> list[Path]:
    return sorted(PACKAGE.rglob("*.py"))


@pytest.mark.parametrize("path", files(), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_file_imports_only_what_stands_before_it(path):
    parts = ("slimnet", *path.relative_to(PACKAGE).with_suffix("").parts)
    is_package = parts[-1] == "__init__"
    module = ".".join(parts[:-1] if is_package else parts)
    assert problems(module, path.read_text(encoding="utf-8"), is_package) == []


def test_every_item_of_the_line_exists():
    there = {item_of(".".join(("slimnet", *p.relative_to(PACKAGE).with_suffix("").parts)))
             for p in files()}  # fmt: skip
    assert there == {*EVERYWHERE, *ORDER, "__init__", "__main__"}


@pytest.mark.parametrize(
    ("module", "source", "told"),
    [
        ("slimnet.data.load", "from slimnet.search import search", "imports search"),
        ("slimnet.data.load", "from slimnet import report", "imports report"),
        ("slimnet.data.load", "import slimnet", "imports slimnet"),
        ("slimnet.data.load", "def f():\n    import slimnet.groups.find", "imports groups"),
        ("slimnet.data.load", "from ..groups import find_groups", "imports groups"),
        ("slimnet.data.load", "from .. import groups", "imports groups"),
        ("slimnet.groups.find", "from slimnet.saliency import METRICS", "imports saliency"),
        ("slimnet.records", "from slimnet.errors import InputError", "imports errors"),
        ("slimnet.options", "from slimnet.records import Plan", "imports records"),
        ("slimnet.demo", "from slimnet.compress import compress", "imports compress"),
        ("slimnet.compress", "from slimnet.cli import app", "imports cli"),
        ("slimnet.search.search", "import torch_pruning as tp", "torch_pruning, which only"),
        ("slimnet.compress", "from typer import Typer", "typer, which only cli"),
        ("slimnet.search.search", "from slimnet.groups.find import _build", "private _build"),
        ("slimnet.search.search", "import slimnet.groups._hidden", "private _hidden"),
        ("slimnet.helpers", "", "stands nowhere"),
    ],
)
def test_a_bad_import_is_found(module, source, told):
    found = problems(module, source)
    assert len(found) == 1
    assert told in found[0]


def test_good_imports_pass():
    source = "import typer\nfrom slimnet import demo, load\nfrom slimnet.errors import InputError"
    assert problems("slimnet.cli", source) == []
    assert problems("slimnet.data.load", "from slimnet.data.images import _decode") == []
    assert problems("slimnet.load", "from .data import load_splits", is_package=True) == []
    assert problems("slimnet.load", "from ..errors import InputError", is_package=True) == []
    assert problems("slimnet.data.load", "from .images import open_folder") == []
