"""The hidden folder beside the output where one run works: its lock, its journal, its new files.

A run that was killed leaves it behind; the next one into the same output takes it over.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import TracebackType

from slimnet.errors import InputError, SlimnetError
from slimnet.export.folder import absolute, check_output_folder, publish, put_back, writing
from slimnet.export.lock import Lock

LOCK, JOURNAL, RESULT, PREVIOUS = "lock", "search.jsonl", "result", "previous"


class WorkFolder:
    """Where a run that writes to ``out`` works, within its ``with`` block; ``out`` may be None.

    Nothing is made before ``claim``. When the block ends well or in one of slimnet's own errors
    nothing is left. What else ends it, a full disk too, leaves the journal for the next run.
    """

    def __init__(self, out: Path | None) -> None:
        self._out = None if out is None else absolute(out)
        self._lock: Lock | None = None
        self._made: list[Path] = []

    @property
    def _folder(self) -> Path:
        assert self._out is not None
        return self._out.with_name(f".{self._out.name}.partial")

    def __enter__(self) -> WorkFolder:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:  # fmt: skip
        if self._lock is None:
            return
        refused = isinstance(error, SlimnetError) and not isinstance(error.__cause__, OSError)
        _remove(self._folder / RESULT)
        self._remove_previous()
        if error is None or refused:
            _remove(self._folder / JOURNAL)
        _remove(self._folder / LOCK)
        self._lock.release()
        for folder in (self._folder, *self._made):
            with suppress(OSError):  # not empty
                folder.rmdir()

    def claim(self) -> Path | None:
        """Take the folder for this run alone, and return where its journal is or should be.

        A previous result that a killed run had put aside is put back.

        Raises:
            InputError: another run works there, something else is there, or it cannot be made.
        """
        if self._out is None:
            return None
        check_output_folder(self._out)
        with writing(self._out):
            made = [folder for folder in self._out.parents if not folder.exists()]
            self._folder.mkdir(parents=True, exist_ok=True)
            self._require_own()
            self._lock = Lock(self._folder / LOCK, self._out)
            self._made = made
            _remove(self._folder / RESULT)
            put_back(self._folder / PREVIOUS, self._out)
            self._remove_previous()
        return self._folder / JOURNAL

    @contextmanager
    def staging(self) -> Iterator[Path]:
        """Yield an empty folder; publish it as ``out`` if the block ends well.

        A previous result is replaced whole. After an exception it stands as it was.

        Raises:
            InputError: ``out`` cannot be used (see ``check_output_folder``) or cannot be written.
        """
        if self._out is None:
            with tempfile.TemporaryDirectory() as temporary:
                yield Path(temporary)
            return
        result = self._folder / RESULT
        with writing(self._out):
            result.mkdir()  # not tempfile: its folders are closed to others
        yield result
        check_output_folder(self._out)  # the work was long; someone may have put something there
        with writing(self._out):
            publish(result, self._out, self._folder / PREVIOUS)

    def _remove_previous(self) -> None:
        # where nothing came in its place, it may be all that there is
        if self._out is not None and self._out.exists():
            _remove(self._folder / PREVIOUS)

    def _require_own(self) -> None:
        there = {entry.name for entry in self._folder.iterdir()}
        if self._folder.is_symlink() or not there <= {LOCK, JOURNAL, RESULT, PREVIOUS}:
            raise InputError(
                f"slimnet works in {self._folder} until {self._out} is there, but it holds "
                "something else: move that away, or choose another output folder"
            )


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        with suppress(OSError):
            os.unlink(path)
