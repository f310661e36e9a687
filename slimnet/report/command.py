"""The command line that repeats a run."""

from __future__ import annotations

import shlex
from dataclasses import fields
from typing import Any

from slimnet.settings import Settings


def command_line(source: str, data: str | None, out: str | None, settings: Settings) -> str:
    """Return the command that does the same again: only dials that are not at their default."""
    words = ["slimnet", "compress", source]
    if data is not None:
        words += ["--data", data]
    for dial in fields(settings):
        value = getattr(settings, dial.name)
        if value == dial.default and dial.name != "max_drop":
            continue
        option = "--" + dial.name.replace("_", "-")
        if isinstance(value, bool):
            words.append(option if value else "--no-" + option.removeprefix("--"))
        elif dial.metadata["repeat"]:
            words += [word for part in value for word in (option, str(part))]
        else:
            words += [option, _text(value)]
    if out is not None:
        words += ["--out", out]
    return shlex.join(words)


def _text(value: Any) -> str:
    if isinstance(value, tuple):
        return ",".join(_text(part) for part in value)
    return f"{value:g}" if isinstance(value, float) and float(f"{value:g}") == value else str(value)
