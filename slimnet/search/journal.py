"""The journal of a search: what it measured, kept as it goes, so that a killed run can go on.

The same command takes the same decisions from the same measurements. What is long to measure, or
comes out otherwise each time, is therefore read from the journal; the rest is computed again.
"""

from __future__ import annotations

import json
import os
import zlib
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

FORMAT = "slimnet journal 4"
STEP = "step"


@dataclass(frozen=True)
class _Entry:
    """One measurement, and the offset in bytes at which its line begins."""

    kind: str
    value: Any
    offset: int


class Journal:
    """Entries in the order of the search, one line each; the same run asks for them in that order.

    A line that was torn when the run was killed counts as not written, and so does whatever
    comes after it. ``steps`` is how many steps an interrupted run had finished.

    Args:
        path: the file, which is made or continued. None keeps nothing. A file that cannot be
            read or written is no reason to end a search: then nothing is kept either.
        key: what the search depends on. A journal with another key is replaced.
    """

    def __init__(self, path: Path | None = None, key: str = "") -> None:
        self._path = path
        self._recorded: deque[_Entry] = deque()
        head = _Entry(FORMAT, key, 0)
        entries = [] if path is None else _read(path)
        if entries[:1] == [head]:
            self._recorded.extend(entries[1:-1])
            self._cut(entries[-1].offset)
        else:
            self._cut(0)
            self._write(head.kind, head.value)
        self.steps = sum(entry.kind == STEP for entry in self._recorded)

    def once(self, kind: str, measure: Callable[[], Any]) -> Any:
        """Return the next entry, measured now and kept if no interrupted run has done so.

        ``measure`` returns plain JSON values. They come back as they are read from a file, in an
        undisturbed run as well, so that both are alike to the last bit.
        """
        if self._recorded:
            entry = self._recorded.popleft()
            if entry.kind == kind:
                return entry.value
            self._recorded.clear()  # the search went another way: from here on all is measured
            self._cut(entry.offset)
        return self._write(kind, measure())

    def _write(self, kind: str, value: Any) -> Any:
        text = json.dumps([kind, value], separators=(",", ":"))
        if self._path is not None:
            try:
                with self._path.open("ab") as file:
                    file.write(f"{_checksum(text)} {text}\n".encode())
                    file.flush()
                    os.fsync(file.fileno())
            except OSError:
                self._path = None
        return json.loads(text)[1]

    def _cut(self, length: int) -> None:
        """Leave only the first ``length`` bytes of the file."""
        if self._path is not None:
            try:
                with self._path.open("ab") as file:
                    file.truncate(length)
            except OSError:
                self._path = None


def _read(path: Path) -> list[_Entry]:
    """Return the entries up to the first line that is not whole, and where that one begins."""
    try:
        lines = path.read_bytes().splitlines(keepends=True)
    except OSError:
        return []
    entries, offset = [], 0
    for line in lines:
        told, _, text = line.decode(errors="replace").partition(" ")
        if not text.endswith("\n") or told != _checksum(text[:-1]):
            break
        kind, value = json.loads(text)
        entries.append(_Entry(kind, value, offset))
        offset += len(line)
    return [*entries, _Entry("", None, offset)]


def _checksum(text: str) -> str:
    return f"{zlib.crc32(text.encode()):08x}"
