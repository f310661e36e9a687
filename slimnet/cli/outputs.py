"""The printed result, and the files that are written beside the result's folder."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, nullcontext, redirect_stdout, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console, RenderableType
from rich.table import Table

from slimnet.cli.options import NONE, chosen_options, chosen_values
from slimnet.errors import InputError, SlimnetError
from slimnet.options import ResultOptions, options_of

if TYPE_CHECKING:
    from slimnet.records import Result
    from slimnet.report import Progress

PIPE_COLUMNS = 200
HEAD_BYTES = 4096
STDOUT = "-"
# how a file that slimnet wrote begins: only such a file is replaced
MARKS = {"junit": b'<testsuites name="slimnet"', "json": b'"slimnet_version"'}


def print_parts(parts: Iterable[RenderableType], *, stderr: bool = False) -> None:
    """Print tables as wide as the terminal is, without lines in a pipe, and text as it is."""
    console = Console(stderr=stderr)
    if not console.is_terminal:
        console = Console(stderr=stderr, width=PIPE_COLUMNS)
    for part in parts:
        line = isinstance(part, str)
        if isinstance(part, Table) and not console.is_terminal:
            part.box = None
        console.print(part, markup=False, highlight=not line, soft_wrap=line)


def require_usable(chosen: ResultOptions) -> None:
    """Refuse files that cannot be written, before any work; writes nothing.

    Raises:
        InputError: one is no file name, lies in the result's folder ``out`` or holds something
            that slimnet did not write, or two are one file.
    """
    if STDOUT in (chosen.summary, chosen.junit):
        raise InputError("only --json can go to stdout (-): name a file for the others")
    files = _files(chosen)
    for name, file in files.items():
        if reason := _refusal(name, file, Path(chosen.out)):
            raise InputError(f"--{name} {file!r} {reason}")
    if len({Path(file).resolve() for file in files.values()}) < len(files):
        raise InputError(
            f"--{' and --'.join(files)} must be different files; got "
            f"{' and '.join(files.values())}: give each another name"
        )


def _files(chosen: ResultOptions) -> dict[str, str]:
    named = {"summary": chosen.summary, "junit": chosen.junit, "json": chosen.json}
    return {name: file for name, file in named.items() if file is not None and file != STDOUT}


def _refusal(name: str, file: str, out: Path) -> str:
    """Return why a file cannot be written, or an empty string."""
    path = Path(file)
    if file.startswith("--"):
        return "is an option: name a file"
    try:
        if not file or path.is_dir() or not path.parent.is_dir():
            return "must be a file in an existing folder: name another"
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
    replaceable = MARKS[name] in head if name in MARKS else _takes_markdown(head)
    return "" if replaceable or not head else "holds something else: name another file"


def _takes_markdown(head: bytes) -> bool:
    """Tell whether Markdown may follow such a beginning: a binary file, XML or JSON is spoilt."""
    return not (b"\0" in head or head.lstrip().startswith((b"<?xml", b"{")))


def _head(path: Path) -> bytes:
    if not path.exists():
        return b""
    with path.open("rb") as opened:
        return opened.read(HEAD_BYTES)


@contextmanager
def show_progress(chosen: ResultOptions, max_drop_points: float) -> Iterator[Progress | None]:
    """Yield what shows the progress; if JSON goes to stdout, nothing else can get there."""
    from slimnet.report import TerminalProgress

    wanted = chosen.progress and not chosen.quiet
    shown = TerminalProgress(max_drop_points) if wanted else None
    elsewhere = redirect_stdout(sys.stderr) if chosen.json == STDOUT else nullcontext()
    with elsewhere, shown or nullcontext():
        yield shown


def report_result(chosen: ResultOptions, result: Result) -> None:
    """Write the files and print what is to be printed.

    Raises:
        InputError: a file or the output cannot be written; the folder ``out`` is complete.
    """
    from slimnet import report

    record = result.report
    if chosen.summary is not None:
        _append(Path(chosen.summary), report.markdown_summary(record))
    if chosen.junit is not None:
        _replace(Path(chosen.junit), report.junit_xml(record))
    if chosen.json is not None and chosen.json != STDOUT:
        _replace(Path(chosen.json), report.report_json(record))
    try:
        print_parts(_printed(chosen, result), stderr=chosen.json == STDOUT)
        if chosen.json == STDOUT:
            print(report.report_json(record), end="", flush=True)
    except OSError as error:
        raise InputError(
            f"cannot print the result: {error.strerror or error}; {result.folder} is complete"
        ) from error


def _printed(chosen: ResultOptions, result: Result) -> list[RenderableType]:
    from slimnet import report

    if chosen.quiet:
        return [report.verdict_line(result.report)]
    end = f"Written to {result.folder}/"
    if result.earlier:
        end = f"Up to date: {result.folder}/ (--no-cache runs anew)"
    tables = [report.result_table(result.report), report.goals_table(result.report)]
    shown = [table for table in tables if table is not None]
    lines = report.summary_lines(result.report)
    if not report.anything_removed(result.report):
        return [*lines, *shown, end]  # the reasons first: the table says nothing then
    return [*shown, *lines, end]


def report_failure(chosen: ResultOptions, message: str, exit_code: int) -> None:
    """Write into summary and JUnit file, if they can be written, that there is no result."""
    for name, file in _files(chosen).items():
        if name == "json" or _refusal(name, file, Path(chosen.out)):
            continue
        from slimnet import report

        with suppress(InputError, OSError):
            if name == "summary":
                _append(Path(file), report.markdown_error(message, exit_code))
            else:
                _replace(Path(file), report.junit_error(message, exit_code))


def _append(path: Path, text: str) -> None:
    """Write at the end of a file, which may be new."""
    try:
        with path.open("a", encoding="utf-8") as file:
            file.write(text)
    except OSError as error:
        raise InputError(f"cannot write {path}: {error.strerror or error}") from error


def _replace(path: Path, text: str) -> None:
    """Write a file anew, whole or not at all; a device or pipe stays one."""
    from slimnet.load import partial_file

    if path.exists() and not path.is_file():
        _append(path, text)
        return
    with partial_file(path.resolve()) as temporary:
        temporary.write_text(text, encoding="utf-8")


def files_named(arguments: Sequence[str]) -> ResultOptions:
    """Return the files that a command line names, also one that cannot be understood."""
    chosen = ResultOptions()
    if arguments[:1] != ["compress"]:
        return chosen
    with suppress(SlimnetError):
        chosen = chosen.changed(chosen_options(chosen_values({}), ResultOptions))
    files = {one.flag: one for one in options_of(ResultOptions) if one.kind is str}
    found: dict[str, Any] = {}
    for word, following in zip(arguments, [*arguments[1:], ""], strict=True):
        flag, equals, value = word.partition("=")
        if flag in files:
            value = value if equals else following
            found[files[flag].name] = None if value == NONE else value
    with suppress(SlimnetError):
        chosen = chosen.changed(found)
    return chosen
