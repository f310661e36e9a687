"""Paying widths kept in the user's cache folder, since a machine's do not change.

A cache that cannot be read or written is as good as an empty one, so nothing here raises.
"""

from __future__ import annotations

import json
import os
import secrets
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

FILE = "paying_widths_1.json"  # counted up whenever something else is measured
TROUBLE = (OSError, ValueError, RuntimeError)  # RuntimeError: no home folder; too deep a JSON


def recall_widths(machine: str) -> tuple[int, ...] | None:
    """Return the ascending widths kept for a machine, or None if there are none to be trusted."""
    widths = _everything().get(machine)
    if not isinstance(widths, list) or not all(type(width) is int for width in widths):
        return None
    sound = bool(widths) and widths[0] > 0 and widths == sorted(set(widths))
    return tuple(widths) if sound else None


def remember_widths(machine: str, widths: Sequence[int]) -> None:
    """Keep the widths of a machine beside those of others, where the folder can be written."""
    with suppress(*TROUBLE):
        file = _file()
        file.parent.mkdir(parents=True, exist_ok=True)
        temporary = file.with_name(f".{file.stem}.{secrets.token_hex(4)}.json")
        try:
            everything = {**_everything(), machine: list(widths)}
            temporary.write_text(json.dumps(everything, indent=1) + "\n", encoding="utf-8")
            os.replace(temporary, file)
        finally:
            temporary.unlink(missing_ok=True)


def _everything() -> Mapping[str, Any]:
    with suppress(*TROUBLE):
        found = json.loads(_file().read_text(encoding="utf-8"))
        return found if isinstance(found, dict) else {}
    return {}


def _file() -> Path:
    given = Path(os.environ.get("XDG_CACHE_HOME", ""))
    # the XDG specification says to ignore a path that is not absolute
    folder = given if given.is_absolute() else Path.home() / ".cache"
    return folder / "slimnet" / FILE
