"""Files beside the result's folder: refused early if they cannot be used, written whole."""

from __future__ import annotations

import os
from pathlib import Path

from slimnet.errors import InputError
from slimnet.export.partial import partial_file

HEAD_BYTES = 4096
# how a file that slimnet wrote begins: only such a one is replaced
MARKS = {"junit": b'<testsuites name="slimnet"', "json": b'"slimnet_version"'}


def refusal(name: str, file: str, out: Path) -> str:
    """Return why a file cannot be written, or an empty string."""
    path = Path(file)
    if file.startswith("--"):
        return "is an option: name a file"
    try:
        if not file or path.is_dir() or not path.parent.is_dir():
            return "is to be a file in a folder that is there: name another"
        if path.resolve() in (out.resolve(), *out.resolve().parents):
            return f"is where the output folder {out} comes: name another"
        if path.resolve().parent == out.resolve() or (path.parent / "plan.json").is_file():
            return "lies in a result of slimnet, which is replaced whole: name a file beside it"
        if path.exists() and not path.is_file():  # a device
            return ""
        if not os.access(path.parent, os.W_OK | os.X_OK):
            return "is in a folder that cannot be written: name another"
        head = _head(path)
    except OSError as error:
        return f"cannot be used ({error.strerror or error}): name another"
    ours = MARKS[name] in head if name in MARKS else not _is_of_another_form(head)
    return "" if ours or not head else "holds something else: name another file"


def _is_of_another_form(head: bytes) -> bool:
    """Tell whether Markdown would spoil a file that begins so: no text, XML or JSON."""
    return b"\0" in head or head.lstrip().startswith((b"<?xml", b"{"))


def _head(path: Path) -> bytes:
    if not path.exists():
        return b""
    with path.open("rb") as opened:
        return opened.read(HEAD_BYTES)


def append(path: Path, text: str) -> None:
    """Write at the end of a file, which may be new.

    Raises:
        InputError: it cannot be written.
    """
    try:
        with path.open("a", encoding="utf-8") as file:
            file.write(text)
    except OSError as error:
        raise InputError(f"cannot write {path}: {error.strerror or error}") from error


def replace_file(path: Path, text: str) -> None:
    """Write a file anew, whole or not at all.

    Raises:
        InputError: it cannot be written.
    """
    if path.exists() and not path.is_file():
        append(path, text)  # a device stays one
        return
    with partial_file(path.resolve()) as temporary:
        temporary.write_text(text, encoding="utf-8")
