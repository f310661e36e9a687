"""What ``import slimnet`` promises: the names, their documentation, and little else."""

from __future__ import annotations

import ast
import importlib
import inspect
import os
import pydoc
import re
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path
from typing import get_origin

import pytest

import slimnet

PUBLIC = [
    "Application",
    "Applied",
    "Benchmark",
    "Comparison",
    "InputError",
    "Inspection",
    "ProofError",
    "Result",
    "Options",
    "SlimnetError",
    "Task",
    "Verification",
    "apply",
    "apply_plan",
    "bench",
    "compare",
    "compress",
    "inspect",
    "load_plan",
    "load_slim",
    "verify",
]
FUNCTIONS = [name for name in PUBLIC if inspect.isfunction(getattr(slimnet, name))]
FOLDERS = sorted(path.parent.name for path in Path(slimnet.__file__).parent.glob("*/__init__.py"))
MODULES = sorted(path.stem for path in Path(slimnet.__file__).parent.glob("[!_]*.py"))
LATE = ("matplotlib", "torchvision.datasets", "typer", "sklearn", "slimnet.cli")
SECONDS_OF_ITS_OWN = 2.0
MEASURE = f"""
import sys, time
import torch, onnx, onnxruntime, torch_pruning, safetensors.torch, rich
started = time.perf_counter()
import slimnet
print(time.perf_counter() - started)
print(*[name for name in {LATE!r} if name in sys.modules])
"""


def test_all_is_the_documented_list():
    assert sorted(slimnet.__all__) == sorted(PUBLIC)
    assert dir(slimnet) == sorted([*PUBLIC, "__version__"])
    with pytest.raises(AttributeError, match="no attribute 'compres'"):
        slimnet.compres  # noqa: B018


def test_settings_is_the_earlier_name_of_options():
    assert slimnet.Settings is slimnet.Options


@pytest.mark.parametrize("name", ["apply", "bench", "compare", "compress", "inspect", "verify"])
def test_a_command_is_the_function_also_after_its_file_was_imported(name):
    importlib.import_module(f"slimnet.{name}")
    assert inspect.isfunction(getattr(slimnet, name))


def test_type_checkers_see_every_name_that_is_imported_late():
    tree = ast.parse(Path(slimnet.__file__).read_text(encoding="utf-8"))
    imported = {
        alias.name for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }  # fmt: skip
    assert imported >= set(PUBLIC)


def test_import_changes_no_environment():
    code = (
        "import slimnet\nassert before == dict(os.environ)\nfrom slimnet import compress, inspect"
    )
    script = f"import os\nbefore = dict(os.environ)\n{code}\nassert before == dict(os.environ)"
    subprocess.run([sys.executable, "-c", script], check=True)


def test_import_alone_does_not_import_torch():
    script = "import sys, slimnet\nassert not {'torch', 'onnx', 'matplotlib'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", script], check=True)


@pytest.mark.parametrize("name", PUBLIC)
def test_public_name_is_documented(name):
    found = getattr(slimnet, name)
    assert callable(found)
    assert found.__module__.startswith("slimnet.")
    assert len(found.__doc__.splitlines()[0]) > 20
    page = pydoc.render_doc(found, renderer=pydoc.plaintext)
    assert name in page
    assert found.__doc__.splitlines()[0] in page


def test_the_package_page_shows_every_public_name():
    page = pydoc.render_doc(slimnet, renderer=pydoc.plaintext)
    assert slimnet.__doc__.splitlines()[0] in page
    for name in PUBLIC:
        assert name in page


@pytest.mark.parametrize("name", FUNCTIONS)
def test_the_page_of_a_function_says_what_it_takes_changes_and_raises(name):
    found = getattr(slimnet, name)
    page = re.sub("\x08.", "", pydoc.render_doc(found, renderer=pydoc.plaintext))
    assert re.search(r"^ {4}[A-Z].*[.]$", page, re.MULTILINE)  # the summary, a sentence
    arguments = page.partition("\n    Args:\n")[2].partition("\n    Raises:\n")[0]
    for parameter in inspect.signature(found).parameters:
        assert re.search(rf"^ {{8}}(\*\*)?{parameter}: \w", arguments, re.MULTILINE), parameter
    assert re.search(r"^ {8}InputError: \w", page, re.MULTILINE)
    assert re.search("not changed|[Nn]othing is|Change the|[Cc]hanges? ", page)


def test_compress_tells_of_failed_proofs():
    assert "ProofError:" in inspect.getdoc(slimnet.compress)


def test_the_version_is_that_of_the_package():
    assert slimnet.__version__ == version("slimnet")


@pytest.mark.parametrize("name", FOLDERS + MODULES)
def test_everything_public_has_a_docstring(name):
    module = importlib.import_module(f"slimnet.{name}")
    assert module.__doc__
    exported = [
        key for key, value in vars(module).items()
        if not key.startswith("_")
        and f"{getattr(value, '__module__', '')}.".startswith(f"{module.__name__}.")
        and (inspect.isclass(value) or inspect.isfunction(value))
    ]  # fmt: skip
    assert exported
    for key in exported:
        found = getattr(module, key)  # fails where a re-exported name is not there
        if get_origin(found):
            continue  # an alias of a type, which Python 3.10 calls a class
        if inspect.isclass(found) or inspect.isfunction(found):
            # a dataclass without one of its own gets its signature as docstring
            assert found.__doc__
            assert not found.__doc__.startswith(f"{key}(")


def test_import_writes_nothing_so_no_telemetry_of_onnx_runtime_either(tmp_path):
    inherited = {key: value for key, value in os.environ.items()
                 if not key.startswith("ORT_") and key != "CI"}  # fmt: skip
    places = {name: str(tmp_path) for name in ("TMPDIR", "HOME", "XDG_CACHE_HOME")}
    subprocess.run(
        [sys.executable, "-c", "import slimnet.timing, slimnet.export.quantise, slimnet.compress"],
        cwd=tmp_path,
        env=inherited | places,
        check=True,
    )
    assert list(tmp_path.rglob("*")) == []


@pytest.mark.alone
def test_import_is_quick_and_leaves_out_what_is_not_needed(tmp_path):
    run = subprocess.run(
        [sys.executable, "-W", "error::ImportWarning", "-c", MEASURE],
        cwd=tmp_path, capture_output=True, text=True, check=True,
    )  # fmt: skip
    seconds, late = run.stdout.split("\n")[:2]
    assert late == ""
    assert float(seconds) < SECONDS_OF_ITS_OWN
    assert run.stderr == ""
