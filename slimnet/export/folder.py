"""The output folder: refused early, published whole or not at all; and the folder of a run."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from types import TracebackType

from filelock import FileLock, Timeout

from slimnet.errors import InputError, ProofError, SlimnetError
from slimnet.load import sha256_of

ARTEFACTS = frozenset(
    {
        "original.onnx",
        "plan.json",
        "report.html",
        "report.json",
        "slim.int8.onnx",
        "slim.onnx",
        "slim.pt2",
        "slim.safetensors",
    }
)
LOCK, JOURNAL, RESULT, PREVIOUS = "lock", "search.jsonl", "result", "previous"


def check_output_folder(out: Path) -> None:
    """Refuse a folder that cannot take the result; writes nothing. Call before long work.

    A folder that is absent, empty, or holds only a previous slimnet result is fine. It will be
    replaced whole.

    Raises:
        InputError: it is something else, or cannot be replaced; the message says what to do.
    """
    if out.is_symlink():
        raise InputError(
            f"the output must be a folder of its own; {out} is a link: name its target"
        )
    if out.exists():
        if not out.is_dir():
            raise InputError(f"the output must be a folder; {out} is a file: choose another name")
        _require_replaceable(out)
        if any(out.iterdir()) and not _holds_result(out):
            raise InputError(
                f"the output folder must be new, empty or a previous slimnet result; "
                f"{out} holds something else: choose another name"
            )
    require_writable_parent(out)


def _require_replaceable(out: Path) -> None:
    here = absolute(out)
    real = here.resolve()  # a link on the way may lead to the current folder
    if real == Path.cwd() or real in Path.cwd().parents or os.path.ismount(here):
        raise InputError(
            f"the output folder is replaced whole; {out} is a mount point or the current "
            f"folder: name a new folder inside it"
        )


def _holds_result(folder: Path) -> bool:
    try:
        report = json.loads((folder / "report.json").read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return False
    names = {entry.name for entry in folder.iterdir()}
    return isinstance(report, dict) and "slimnet_version" in report and names <= ARTEFACTS


def require_writable_parent(out: Path) -> None:
    """Refuse a folder that could not be made; writes nothing.

    Raises:
        InputError: its parent is no folder that can be written.
    """
    parent = next(folder for folder in absolute(out).parents if os.path.lexists(folder))
    if not parent.is_dir() or not os.access(parent, os.W_OK | os.X_OK):
        raise InputError(f"the output's parent must be a writable folder; {parent} is not")


def absolute(path: Path) -> Path:
    """Return the path from the root, without following links."""
    return Path(os.path.abspath(path))


def require_intact(folder: Path, digests: Mapping[str, str]) -> None:
    """Check that every file in a finished folder has the SHA-256 that its report holds.

    Raises:
        ProofError: a file is missing or has another SHA-256.
    """
    for name, digest in digests.items():
        if Path(name).name != name or not (folder / name).is_file():
            raise ProofError(f"{name} is missing")
        if sha256_of(folder / name) != digest:
            raise ProofError(f"{name} is not the file of the report (SHA-256 differs)")


@contextmanager
def writing(out: Path) -> Iterator[None]:
    """Raise an OSError of the block as an InputError: ``out`` cannot be written."""
    try:
        yield
    except OSError as error:
        raise InputError(f"cannot write {out}: {error.strerror or error}") from error


class WorkFolder:
    """The hidden folder of one run that writes to ``out``: its lock, journal and new files.

    Use it as a context manager.
    Nothing is made before ``claim``. When the block ends well or in one of slimnet's own errors
    nothing is left. Any other end, a full disk too, leaves the journal for the next run. With
    ``out`` None nothing is kept.
    """

    def __init__(self, out: Path | None) -> None:
        self._out = None if out is None else absolute(out)
        self._lock: FileLock | None = None
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
        # While it is held, or another run could lock a file that is then removed. Windows cannot
        # remove it yet; there ``release`` does.
        _remove(self._folder / LOCK)
        self._lock.release()
        for folder in (self._folder, *self._made):
            with suppress(OSError):  # not empty
                folder.rmdir()

    def claim(self) -> Path | None:
        """Take the folder for this run alone, and return the path of its journal.

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
            self._lock = self._locked()
            self._made = made
            _remove(self._folder / RESULT)
            _put_back(self._folder / PREVIOUS, self._out)
            self._remove_previous()
        return self._folder / JOURNAL

    def _require_own(self) -> None:
        there = {entry.name for entry in self._folder.iterdir()}
        if self._folder.is_symlink() or not there <= {LOCK, JOURNAL, RESULT, PREVIOUS}:
            raise InputError(
                f"slimnet works in {self._folder} until {self._out} is there, but it holds "
                "something else: move that away, or choose another output folder"
            )

    def _locked(self) -> FileLock:
        """Return the lock on the folder, which ends with this process at the latest."""
        lock = FileLock(self._folder / LOCK, timeout=0)
        try:
            lock.acquire()
        except Timeout as error:
            raise InputError(
                f"one run at a time may write to an output folder; another process works on "
                f"{self._out}: wait for it, or choose another output folder"
            ) from error
        return lock

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
            _publish(result, self._out, self._folder / PREVIOUS)

    def _remove_previous(self) -> None:
        # without a new result in its place, it may be the only one
        if self._out is not None and self._out.exists():
            _remove(self._folder / PREVIOUS)


def _publish(staging: Path, out: Path, aside: Path) -> None:
    """Rename ``staging`` to ``out``; a previous result there is left at ``aside``.

    Raises:
        OSError: it cannot be renamed; the previous result stands as it was.
    """
    mode = None
    if out.exists():
        mode = out.stat().st_mode
        with suppress(OSError):
            out.chmod(mode | 0o700)  # a write-protected folder can neither be moved nor removed
        os.rename(out, aside)
    try:
        os.rename(staging, out)
    except BaseException:
        if mode is not None and aside.exists():
            os.rename(aside, out)
            out.chmod(mode)
        raise


def _put_back(aside: Path, out: Path) -> None:
    """Rename a result at ``aside`` to ``out``, if a run was killed while it published."""
    if not out.exists() and aside.exists() and _holds_result(aside):
        os.rename(aside, out)


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        with suppress(OSError):
            os.unlink(path)
