"""The output folder: refused early if it cannot be used, published whole or not at all."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

from slimnet.errors import InputError, ProofError
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


def check_output_folder(out: Path) -> None:
    """Refuse a folder that cannot take the result; writes nothing. Call before long work.

    Absent, empty, or holding a previous slimnet result and nothing else is fine: the folder will
    be replaced whole.

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


def require_writable_parent(out: Path) -> None:
    """Refuse a folder that could not be made; writes nothing.

    Raises:
        InputError: what it would stand in is no folder that can be written.
    """
    parent = _existing_ancestor(out)
    if not parent.is_dir() or not os.access(parent, os.W_OK | os.X_OK):
        raise InputError(f"the output's parent must be a writable folder; {parent} is not")


def require_intact(folder: Path, digests: Mapping[str, str]) -> None:
    """Check that every file in a finished folder has the SHA-256 that its report tells.

    Raises:
        ProofError: one is missing or another.
    """
    for name, digest in digests.items():
        if Path(name).name != name or not (folder / name).is_file():
            raise ProofError(f"{name} is missing")
        if sha256_of(folder / name) != digest:
            raise ProofError(f"{name} is not the file that the report tells of (SHA-256 differs)")


def publish(staging: Path, out: Path, aside: Path) -> None:
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


def put_back(aside: Path, out: Path) -> None:
    """Rename a result at ``aside`` to ``out``, where whoever published was killed in between."""
    if not out.exists() and aside.exists() and _holds_result(aside):
        os.rename(aside, out)


@contextmanager
def writing(out: Path) -> Iterator[None]:
    """Tell the user of an OSError of the block as an InputError: ``out`` cannot be written."""
    try:
        yield
    except OSError as error:
        raise InputError(f"cannot write {out}: {error.strerror or error}") from error


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


def _existing_ancestor(out: Path) -> Path:
    return next(folder for folder in absolute(out).parents if os.path.lexists(folder))


def absolute(path: Path) -> Path:
    """Return the path from the root, without following links."""
    return Path(os.path.abspath(path))
