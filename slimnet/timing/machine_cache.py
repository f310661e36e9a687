"""Measurements of this machine, as JSON in the user's cache folder, for the next process."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeVar

from slimnet.errors import InputError
from slimnet.load import partial_file, record_from_json

MAX_ENTRIES = 100  # in one file; a guess: ten searches with ten profiles each
# a cache that cannot be used is no error; RuntimeError: no home folder, or too deep a JSON
CACHE_ERRORS = (OSError, ValueError, RuntimeError)

Value = TypeVar("Value")


def recall(file: str, key: str, kind: type[Value]) -> Value | None:
    """Return the entry of a cache file under a key, or None if there is none of this kind."""
    with suppress(*CACHE_ERRORS):
        return record_from_json(kind, json.dumps(_read(file).get(key)))
    return None


def remember(file: str, key: str, value: Any) -> None:
    """Put an entry, plain JSON values, at the end of a cache file, if its folder can be written.

    Of more than 100 entries the oldest go.
    """
    with suppress(InputError, *CACHE_ERRORS):
        path = _path(file)
        path.parent.mkdir(parents=True, exist_ok=True)
        others = [(name, entry) for name, entry in _read(file).items() if name != key]
        content = dict([*others, (key, value)][-MAX_ENTRIES:])
        with partial_file(path) as temporary:
            temporary.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


def _read(file: str) -> Mapping[str, Any]:
    with suppress(*CACHE_ERRORS):
        content = json.loads(_path(file).read_text(encoding="utf-8"))
        return content if isinstance(content, dict) else {}
    return {}


def _path(file: str) -> Path:
    given = Path(os.environ.get("XDG_CACHE_HOME", ""))
    # the XDG specification says to ignore a path that is not absolute
    folder = given if given.is_absolute() else Path.home() / ".cache"
    return folder / "slimnet" / file
