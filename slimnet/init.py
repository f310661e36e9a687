"""A slimnet.toml to start from: every option, commented out, with its unit and default."""

from __future__ import annotations

import json
import os
import textwrap
from pathlib import Path
from typing import Any

from slimnet.errors import InputError
from slimnet.load import partial_file
from slimnet.options import CommandOptions, Option, Options, options_of, read_configuration

NAME = "slimnet.toml"
WIDTH = 98
HEAD = """\
# slimnet.toml: options for the commands of slimnet that are run in this folder.
# An option on the command line wins over this file. Remove the # before a name to set the option.
# Each line shows the default or, if there is none, an example.
"""


def write_configuration(folder: str | Path = ".", *, force: bool = False) -> Path:
    """Write a slimnet.toml with every option commented out, and return its path.

    Args:
        folder: where it is put.
        force: replace a file that is there, and hide a table [tool.slimnet] of a pyproject.toml.

    Raises:
        InputError: one of these is there, or the file cannot be written.
    """
    path = Path(folder) / NAME
    if not force:
        _require_new(path)
    with partial_file(path) as temporary:
        temporary.write_text(configuration_text(), encoding="utf-8")
    return path


def configuration_text() -> str:
    """Return the text of that file; read back, it leaves every option at its default."""
    sections: dict[str, list[str]] = {}
    for option in options_of(CommandOptions, Options):
        sections.setdefault(option.section, []).append(_entry(option))
    parts = [(f"# ---- {title} ----\n", *entries) for title, entries in sections.items()]
    return "\n".join([HEAD, *(line for part in parts for line in part)])


def _require_new(path: Path) -> None:
    if os.path.lexists(path):
        raise InputError(f"{path} is there already: edit it, or write it anew with --force")
    if read_configuration(path.parent):
        raise InputError(
            f"{path.with_name('pyproject.toml')} has a table [tool.slimnet], which would no longer "
            f"be read beside {NAME}: add to the table, or write the file all the same with --force"
        )


def _entry(option: Option) -> str:
    default = f"default {_toml(option.default)}" if option.has_default else "not set by default"
    texts = (option.help, f"({option.rule}; {default})")
    comment = "".join(f"# {line}\n" for text in texts for line in textwrap.wrap(text, WIDTH))
    return f"{comment}#{option.name} = {_toml(_shown(option))}\n"


def _shown(option: Option) -> Any:
    """Return the default or, if there is none, an example: the least that the option may be."""
    if option.has_default:
        return option.default
    example = option.example
    if example is None and option.choices and option.kind is str:
        example = option.choices[0]
    if example is None:
        example = "..." if option.kind is str else option.kind(max(0, option.limits[0]))
    return (example,) if option.many and not isinstance(example, tuple) else example


def _toml(value: Any) -> str:
    if isinstance(value, tuple):
        return "[" + ", ".join(map(_toml, value)) + "]"
    # TOML writes text, numbers, true and false as JSON does
    return json.dumps(value, ensure_ascii=False)
