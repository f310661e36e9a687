"""One hash of every file that a run reads, by content: is this run the same as an earlier one?"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from slimnet.load.model_file import sha256_of
from slimnet.settings import Settings

MOST_CODE_FILES = 1000


def content_sha256(model: Any, data: Any, settings: Settings) -> str | None:
    """Return the hash of model, data and all files that the settings name; nothing is changed.

    Code of the user's counts with every Python file beside and below it. None where the content
    cannot be told: live objects, data or classes made by code, or a file that cannot be read.
    """
    if settings.allow or settings.trust_pickle:
        return None
    found = hashlib.sha256()
    try:
        for name, value in (
            ("model", model), ("data", data), ("calibration_data", settings.calibration_data),
            ("arch", settings.arch), ("preprocess", settings.preprocess), ("task", settings.task),
            ("baseline", settings.baseline),
        ):  # fmt: skip
            for part in () if value is None else _parts(name, value):
                found.update(f"{len(part)} ".encode() + part)
    except (OSError, _UnknownError):
        return None
    return found.hexdigest()


class _UnknownError(Exception):
    """Something of which it cannot be told whether it is still the same."""


def _parts(name: str, value: Any) -> Iterator[bytes]:
    """Yield what stands for one thing that a run reads: its name and the content of its files."""
    yield name.encode()
    if not isinstance(value, (str, Path)):
        raise _UnknownError
    path, _, code = str(value).rpartition(":")
    if name in ("model", "data", "calibration_data", "baseline"):
        place = str(value).partition("@")[2] if str(value).startswith("torchvision:") else value
        yield from _files(Path(place).expanduser(), "*")
    elif name == "task" or path.endswith(".py"):
        file = Path(value if name == "task" else path)
        yield from (file.name.encode(), code.encode())
        yield from _files(file.parent, "*.py")
    elif value == "imagenet" or str(value).startswith("torchvision:"):
        yield str(value).encode()
    else:
        raise _UnknownError


def _files(place: Path, pattern: str) -> Iterator[bytes]:
    """Yield name and content of a file, or of all such files in and below a folder, in order."""
    if place.is_file():
        yield sha256_of(place).encode()
        return
    files = sorted(path for path in place.rglob(pattern) if path.is_file())
    if not files or (pattern != "*" and len(files) > MOST_CODE_FILES):
        raise _UnknownError
    for path in files:
        yield str(path.relative_to(place)).encode(errors="surrogateescape")
        yield sha256_of(path).encode()
