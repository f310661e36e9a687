"""A stream that outlives its reader, so that ``slimnet compress ... | head`` does all its work."""

from __future__ import annotations

import io
import os
import stat
from typing import Any, TextIO


class _LastingPipe(io.FileIO):
    """What is written after the reader has gone is dropped."""

    def write(self, data: object) -> int:
        """Write the bytes, or drop them; return how many."""
        try:
            return super().write(data)  # type: ignore[arg-type]
        except BrokenPipeError:
            return memoryview(data).nbytes  # type: ignore[arg-type]


def lasting_pipe(stream: TextIO) -> TextIO:
    """Return a stream to the same pipe that raises nothing once nobody reads it.

    What is no pipe, or no stream of this process, is returned as it is.
    """
    if not isinstance(stream, io.TextIOWrapper) or not _is_pipe(stream):
        return stream
    stream.flush()
    raw = _LastingPipe(stream.fileno(), "wb", closefd=False)
    buffer: Any = raw if stream.write_through else io.BufferedWriter(raw)  # python -u has none
    return io.TextIOWrapper(
        buffer, encoding=stream.encoding, errors=stream.errors,
        line_buffering=stream.line_buffering, write_through=stream.write_through,
    )  # fmt: skip


def _is_pipe(stream: TextIO) -> bool:
    try:
        mode = os.fstat(stream.fileno()).st_mode
    except OSError:  # it is no file, or closed
        return False
    return stat.S_ISFIFO(mode) or stat.S_ISSOCK(mode)
