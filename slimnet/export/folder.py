"""The output folder: refused early if it cannot be used, published whole or not at all."""

from __future__ import annotations

import json
import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from slimnet.errors import InputError

ARTEFACTS = frozenset(
    {
        "original.onnx",
        "plan.json",
        "report.html",
        "report.json",
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
    parent = _existing_ancestor(out)
    if not parent.is_dir() or not os.access(parent, os.W_OK | os.X_OK):
        raise InputError(f"the output's parent must be a writable folder; {parent} is not")


@contextmanager
def staging_folder(out: Path) -> Iterator[Path]:
    """Yield a temporary sibling of ``out``; publish it as ``out`` if the block ends well.

    A previous result is replaced whole. After an exception it stands as it was, and nothing of
    the new one is left.

    Raises:
        InputError: ``out`` cannot be used (see ``check_output_folder``) or cannot be written.
    """
    check_output_folder(out)
    out = _absolute(out)
    token = secrets.token_hex(4)
    staging = out.with_name(f".{out.name}.{token}.tmp")
    created = [folder for folder in out.parents if not folder.exists()]
    try:
        with _writing(out):
            staging.mkdir(parents=True)  # not tempfile: its folders are closed to others
        yield staging
        check_output_folder(out)  # the work was long; someone may have put something there
        with _writing(out):
            _publish(staging, out, out.with_name(f".{out.name}.{token}.old"))
    except BaseException:
        shutil.rmtree(staging, ignore_errors=True)
        _remove_empty(created)
        raise


def _publish(staging: Path, out: Path, aside: Path) -> None:
    if out.exists():
        os.rename(out, aside)
    try:
        os.rename(staging, out)
    except BaseException:
        if aside.exists():
            os.rename(aside, out)
        raise
    shutil.rmtree(aside, ignore_errors=True)


@contextmanager
def _writing(out: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise InputError(f"cannot write {out}: {error.strerror or error}") from error


def _remove_empty(folders: list[Path]) -> None:
    for folder in folders:
        try:
            folder.rmdir()
        except OSError:
            return


def _require_replaceable(out: Path) -> None:
    here = _absolute(out)
    if here == Path.cwd() or here in Path.cwd().parents or os.path.ismount(here):
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
    return next(folder for folder in _absolute(out).parents if os.path.lexists(folder))


def _absolute(path: Path) -> Path:
    return Path(os.path.abspath(path))
