"""A lock that one process holds at a time, and that ends with the process, however it ends."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

from slimnet.errors import InputError

try:
    import fcntl
except ImportError:  # there is no such lock on Windows: two runs at once are not told apart
    fcntl = None  # type: ignore[assignment]


class Lock:
    """The lock on an output folder, held from here on until ``release``; ``path`` is its file.

    Raises:
        InputError: another process holds it.
        OSError: the file cannot be made.
    """

    def __init__(self, path: Path, out: Path) -> None:
        self._file = _open(path)
        while _lock(self._file):
            if _is_at(path, self._file):
                os.ftruncate(self._file, 0)
                os.write(self._file, str(os.getpid()).encode())
                return
            # whoever held it has removed the file meanwhile; it locks nothing any more
            self.release()
            self._file = _open(path)
        holder = os.read(self._file, 20).decode(errors="replace")
        self.release()
        raise InputError(
            f"one run at a time may write to an output folder; process {holder} works on {out}: "
            "wait for it, or choose another output folder"
        )

    def release(self) -> None:
        """Let the next one have it."""
        os.close(self._file)


def _open(path: Path) -> int:
    return os.open(path, os.O_RDWR | os.O_CREAT, 0o644)


def _lock(file: int) -> bool:
    if fcntl is None:
        return True
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        return True  # a file system without locks
    return True


def _is_at(path: Path, file: int) -> bool:
    with suppress(FileNotFoundError):
        return os.path.samestat(os.stat(path), os.fstat(file))
    return False
