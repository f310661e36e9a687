"""Import code that the user names, and quote names and errors of others in one line."""

import hashlib
import importlib
import importlib.util
import os
import sys
import sysconfig
import traceback
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any, cast

import torch

from slimnet.errors import InputError

MAX_CHARACTERS = 120  # of a name from a file; longer ones fill the screen
_INSTALLED = Path(torch.__path__[0])
_LIBRARIES = (_INSTALLED, _INSTALLED.with_name("torch_pruning"), Path(__file__).parents[1])
_PYTHON = tuple(sysconfig.get_path(name) for name in ("stdlib", "platstdlib"))


@contextmanager
def folders_on_path(*folders: Path) -> Iterator[None]:
    """Put folders first on ``sys.path`` in the block."""
    added = [str(folder) for folder in folders]
    sys.path[:0] = added
    try:
        yield
    finally:
        for entry in added:
            if entry in sys.path:
                sys.path.remove(entry)


def first_line(error: BaseException) -> str:
    """Return the error's kind and the first line of its message."""
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__


def line_of_code(stack: Iterable[traceback.FrameSummary]) -> str:
    """Return the innermost line that is neither torch's, Python's nor slimnet's, or "".

    It reads "code (file.py, line 7)".
    """
    found = ""
    for frame in stack:
        libraries = frame.filename.startswith(tuple(f"{path}{os.sep}" for path in _LIBRARIES))
        # where packages are installed, in Python's own folder too, networks may be
        python = frame.filename.startswith(_PYTHON) and "-packages" not in frame.filename
        if frame.line and not libraries and not python and frame.filename[0] != "<":
            found = f"{frame.line} ({Path(frame.filename).name}, line {frame.lineno})"
    return found


def import_callable(target: str) -> Callable[..., Any]:
    """Return the callable that ``package.module:name`` or ``path/file.py:name`` names.

    The working folder is on ``sys.path`` during the import, as is the folder of a named file.

    Raises:
        InputError: wrong form, no such file, module or name, not callable, or the import failed.
    """
    place, colon, name = target.rpartition(":")
    if not colon or not place or not name:
        raise InputError(
            f"a callable is named package.module:name or path/file.py:name; got {target!r}"
        )
    module = import_file(Path(place)) if place.endswith(".py") else import_module(place)
    found: Any = module
    for part in name.split("."):
        found = getattr(found, part, None)
    if found is None:
        raise InputError(f"{place} has no {name!r}; check the name after the colon in {target!r}")
    if not callable(found):
        raise InputError(f"{target} must be callable; got a {type(found).__name__}")
    return cast("Callable[..., Any]", found)


def import_module(name: str) -> ModuleType:
    """Return the module that the user named, with the working folder on ``sys.path``.

    Raises:
        InputError: the import failed.
    """
    try:
        with folders_on_path(Path.cwd()):
            return importlib.import_module(name)
    except (Exception, SystemExit) as error:  # the user's code may raise anything
        raise InputError(f"cannot import {name!r}: {first_line(error)}") from error


def import_file(path: Path) -> ModuleType:
    """Return the module that a Python file holds, run afresh under a name of its own.

    Raises:
        InputError: no such file, or running it failed.
    """
    path = path.expanduser().resolve()
    if not path.is_file():
        raise InputError(f"there is no Python file {path}; give the path of an existing .py file")
    name = f"slimnet_user_{path.stem}_{hashlib.sha256(str(path).encode()).hexdigest()[:8]}"
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise InputError(f"cannot import {path}; give a Python file")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # dataclasses and pickle look their module up by name
    try:
        with folders_on_path(path.parent, Path.cwd()):
            spec.loader.exec_module(module)
    except (Exception, SystemExit) as error:
        del sys.modules[name]
        raise InputError(f"cannot run {path}: {first_line(error)}") from error
    return module


def shown(name: object) -> str:
    """Return a name from a file for a message: shortened, and without control characters."""
    text = name if isinstance(name, str) else f"a {type(name).__name__}"
    if len(text) > MAX_CHARACTERS:
        text = text[:MAX_CHARACTERS] + "..."
    return "".join(character if character.isprintable() else "?" for character in text)


def listed(names: Iterable[object], most: int = 5) -> str:
    """Return the first names between commas, and dots where there are more."""
    every = list(names)
    return ", ".join(map(shown, every[:most])) + (", ..." if len(every) > most else "")
