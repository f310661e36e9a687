"""What a pipeline reads of a run: files for build servers, JSON, and how much is printed."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext, redirect_stdout, suppress
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console

from slimnet import report
from slimnet.errors import InputError
from slimnet.export.partial import partial_file
from slimnet.records import Report, Result

OUT = "slim"
STDOUT = "-"
HEAD_BYTES = 4096
# how a file that slimnet wrote begins: only such a one is replaced
MARKS = {"junit": b'<testsuites name="slimnet"', "json": b'"slimnet_version"'}


@dataclass(frozen=True)
class Outputs:
    """Where the result is told, beside its folder ``out``; None: not there."""

    out: str
    summary: str | None = None
    junit: str | None = None
    json: str | None = None
    quiet: bool = False
    no_progress: bool = False

    def require_usable(self) -> None:
        """Refuse files that cannot be written, before any work; writes nothing.

        Raises:
            InputError: one is no file name, lies in the result's folder ``out`` or holds something
                that slimnet did not write, or two are one file.
        """
        if STDOUT in (self.summary, self.junit):
            raise InputError("only --json can go to stdout (-): name a file for the others")
        files = self._files()
        for name, file in files.items():
            reason = _refusal(name, file, Path(self.out))
            if reason:
                raise InputError(f"--{name} {file!r} {reason}")
        if len({Path(file).resolve() for file in files.values()}) < len(files):
            raise InputError(
                f"--{' and --'.join(files)} are files of their own; got "
                f"{' and '.join(files.values())}: give each another name"
            )

    @contextmanager
    def progress(self, max_drop_points: float) -> Iterator[report.Progress | None]:
        """Yield what shows the progress; where JSON goes to stdout, nothing else can get there."""
        shown = None if self.quiet or self.no_progress else report.TerminalProgress(max_drop_points)
        elsewhere = redirect_stdout(sys.stderr) if self.json == STDOUT else nullcontext()
        with elsewhere, shown or nullcontext():
            yield shown

    def tell(self, result: Result) -> None:
        """Write the files and print what is to be printed.

        Raises:
            InputError: a file or the output cannot be written; the folder ``out`` is complete.
        """
        told = result.report
        if self.summary is not None:
            _append(Path(self.summary), report.markdown_summary(told))
        if self.junit is not None:
            _replace(Path(self.junit), report.junit_xml(told))
        if self.json not in (None, STDOUT):
            _replace(Path(str(self.json)), report.report_json(told))
        try:
            self._print(told, result)
            if self.json == STDOUT:
                print(report.report_json(told), end="", flush=True)
        except OSError as error:
            raise InputError(
                f"cannot print the result: {error.strerror or error}; {result.folder} is complete"
            ) from error

    def tell_failure(self, message: str, exit_code: int) -> None:
        """Leave word, where a file can be written, that there is no result; raises nothing."""
        texts = {
            "summary": (_append, report.markdown_error(message, exit_code)),
            "junit": (_replace, report.junit_error(message, exit_code)),
        }
        for name, file in self._files().items():
            if name in texts and not _refusal(name, file, Path(self.out)):
                write, text = texts[name]
                with suppress(InputError, OSError):
                    write(Path(file), text)

    def _files(self) -> dict[str, str]:
        named = {"summary": self.summary, "junit": self.junit, "json": self.json}
        return {name: file for name, file in named.items() if file not in (None, STDOUT)}

    def _print(self, told: Report, result: Result) -> None:
        console = Console(stderr=self.json == STDOUT)
        lines = [*report.summary_lines(told), f"Written to {result.folder}/"]
        if result.earlier:
            lines[-1] = f"Nothing has changed since: {result.folder}/ stands (--no-cache runs anew)"
        if self.quiet:
            lines = [report.verdict_line(told)]
        else:
            for table in (report.result_table(told), report.goals_table(told)):
                if table is not None:
                    console.print(table)
        for line in lines:
            console.print(line, markup=False, highlight=False, soft_wrap=True)


def outputs_named(arguments: Sequence[str]) -> Outputs:
    """Return the files that a command line names, also one that cannot be understood."""
    found = {"--out": OUT}
    for word, following in zip(arguments, [*arguments[1:], ""], strict=True):
        option, equals, value = word.partition("=")
        if option in ("--out", "--summary", "--junit") and arguments[0] == "compress":
            found[option] = value if equals else following
    return Outputs(found["--out"], found.get("--summary"), found.get("--junit"))


def _refusal(name: str, file: str, out: Path) -> str:
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


def _append(path: Path, text: str) -> None:
    try:
        with path.open("a", encoding="utf-8") as file:
            file.write(text)
    except OSError as error:
        raise InputError(f"cannot write {path}: {error.strerror or error}") from error


def _replace(path: Path, text: str) -> None:
    if path.exists() and not path.is_file():
        _append(path, text)  # a device stays one
        return
    with partial_file(path.resolve()) as temporary:
        temporary.write_text(text, encoding="utf-8")
