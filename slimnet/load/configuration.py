"""Read slimnet.toml, or [tool.slimnet] of pyproject.toml."""

from __future__ import annotations

import importlib
import sys
from dataclasses import Field, fields
from pathlib import Path
from typing import Any

from slimnet.errors import InputError
from slimnet.load.importing import first_line
from slimnet.settings import Settings, as_given, nearest, require_fit

TOML_MODULE = "tomllib" if sys.version_info >= (3, 11) else "tomli"
OUTPUTS = ("summary", "junit", "json")
BESIDE_SETTINGS: dict[str, type] = dict.fromkeys(("model", "data", "out", *OUTPUTS), str)
BESIDE_SETTINGS |= {"quiet": bool, "progress": bool}
BESIDE_SETTINGS |= {"input_shape": str, "sample": int, "profile": bool}
IN_WORDS = {str: "text in quotes", bool: "true or false", int: "a whole number"}


def read_configuration(folder: Path) -> dict[str, Any]:
    """Return the options that a folder's slimnet.toml sets, or {} where nothing is set.

    Without that file, the table [tool.slimnet] of its pyproject.toml. Keys are the names of the
    settings and of the commands' other options; a hyphen counts as an underscore.

    Raises:
        InputError: not TOML, or an unknown or doubled key.
    """
    path = folder / "slimnet.toml"
    if path.is_file():
        return _checked(_parse(path), path)
    path = folder / "pyproject.toml"
    if not path.is_file():
        return {}
    tool = _parse(path).get("tool", {})
    return _checked(tool.get("slimnet", {}) if isinstance(tool, dict) else {}, path)


def _parse(path: Path) -> dict[str, Any]:
    toml = importlib.import_module(TOML_MODULE)
    try:
        parsed: dict[str, Any] = toml.loads(path.read_text(encoding="utf-8"))
        return parsed
    except (ValueError, OSError) as error:  # a TOML or a decoding error is a ValueError
        raise InputError(f"{path} is not valid TOML: {first_line(error)}") from error


def _checked(table: Any, path: Path) -> dict[str, Any]:
    if not isinstance(table, dict):
        raise InputError(f"{path}: [tool.slimnet] is a table; got a {type(table).__name__}")
    dials = {dial.name: dial for dial in fields(Settings)}
    known = [*dials, *BESIDE_SETTINGS]
    options: dict[str, Any] = {}
    for key, value in table.items():
        name = key.replace("-", "_")
        if name not in known:
            raise InputError(f"{path}: unknown key {key!r}{_hint(name, known)}")
        kind = BESIDE_SETTINGS.get(name, type(value))
        if type(value) is not kind:
            raise InputError(f"{path}: {name} is {IN_WORDS[kind]}; got {value!r}")
        if name in options:
            raise InputError(f"{path}: {name!r} stands twice, with a hyphen and an underscore")
        if name in dials:
            _require_dial(dials[name], value, path)
        options[name] = value
    return options


def _require_dial(dial: Field[Any], value: Any, path: Path) -> None:
    """Name the file: the same dial may stand on the command line, and in Python."""
    try:
        require_fit(dial, as_given(dial, value))
    except InputError as error:
        raise InputError(f"{path}: {error}") from error


def _hint(name: str, known: list[str]) -> str:
    close = nearest(name, known)
    return close if "did you mean" in close else "; slimnet init writes a file with every key"
