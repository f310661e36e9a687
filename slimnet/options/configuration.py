"""Read slimnet.toml, or [tool.slimnet] of pyproject.toml."""

import importlib
import sys
from pathlib import Path
from typing import Any

from slimnet.errors import InputError
from slimnet.options.commands import CommandOptions
from slimnet.options.option import nearest, options_of
from slimnet.options.sections import Options

TOML_MODULE = "tomllib" if sys.version_info >= (3, 11) else "tomli"


def read_configuration(folder: Path) -> dict[str, Any]:
    """Return the options that a folder's slimnet.toml sets, or {} where nothing is set.

    Without that file, the table [tool.slimnet] of its pyproject.toml. Keys are the names of the
    options; a hyphen counts as an underscore.

    Raises:
        InputError: not TOML, an unknown or doubled key, or a value that breaks the option's rule.
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
        raise InputError(f"{path} is not valid TOML: {str(error).splitlines()[0]}") from error


def _checked(table: Any, path: Path) -> dict[str, Any]:
    if not isinstance(table, dict):
        raise InputError(f"{path}: [tool.slimnet] is a table; got a {type(table).__name__}")
    known = {one.name: one for one in options_of(Options, CommandOptions)}
    chosen: dict[str, Any] = {}
    for key, value in table.items():
        name = key.replace("-", "_")
        if name not in known:
            raise InputError(f"{path}: unknown key {key!r}{_hint(name, list(known))}")
        if name in chosen:
            raise InputError(f"{path}: {name!r} stands twice, with a hyphen and an underscore")
        try:
            known[name].require(known[name].parse(value))
        except InputError as error:
            raise InputError(f"{path}: {error}") from error
        chosen[name] = value
    return chosen


def _hint(name: str, known: list[str]) -> str:
    close = nearest(name, known)
    return close if "did you mean" in close else "; slimnet init writes a file with every key"
