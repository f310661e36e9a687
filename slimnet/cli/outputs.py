"""What a pipeline reads of a run: files for build servers, JSON, and how much is printed."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext, redirect_stdout, suppress
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from slimnet import report
from slimnet.cli.chosen import NONE, chosen_values
from slimnet.cli.output_files import append, refusal, replace_file
from slimnet.cli.printing import print_parts
from slimnet.errors import InputError, SlimnetError
from slimnet.records import Report, Result

OUT = "slim"
STDOUT = "-"
NAMED = ("out", "summary", "junit")


@dataclass(frozen=True)
class Outputs:
    """Where the result is told, beside its folder ``out``; None: not there."""

    out: str = OUT
    summary: str | None = None
    junit: str | None = None
    json: str | None = None
    quiet: bool = False
    progress: bool = True

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
            reason = refusal(name, file, Path(self.out))
            if reason:
                raise InputError(f"--{name} {file!r} {reason}")
        if len({Path(file).resolve() for file in files.values()}) < len(files):
            raise InputError(
                f"--{' and --'.join(files)} are files of their own; got "
                f"{' and '.join(files.values())}: give each another name"
            )

    @contextmanager
    def show_progress(self, max_drop_points: float) -> Iterator[report.Progress | None]:
        """Yield what shows the progress; where JSON goes to stdout, nothing else can get there."""
        shown = (
            None if self.quiet or not self.progress else report.TerminalProgress(max_drop_points)
        )
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
            append(Path(self.summary), report.markdown_summary(told))
        if self.junit is not None:
            replace_file(Path(self.junit), report.junit_xml(told))
        if self.json not in (None, STDOUT):
            replace_file(Path(str(self.json)), report.report_json(told))
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
            "summary": (append, report.markdown_error(message, exit_code)),
            "junit": (replace_file, report.junit_error(message, exit_code)),
        }
        for name, file in self._files().items():
            if name in texts and not refusal(name, file, Path(self.out)):
                write, text = texts[name]
                with suppress(InputError, OSError):
                    write(Path(file), text)

    def _files(self) -> dict[str, str]:
        named = {"summary": self.summary, "junit": self.junit, "json": self.json}
        return {name: file for name, file in named.items() if file not in (None, STDOUT)}

    def _print(self, told: Report, result: Result) -> None:
        lines = [*report.summary_lines(told), f"Written to {result.folder}/"]
        if result.earlier:
            lines[-1] = f"Nothing has changed since: {result.folder}/ stands (--no-cache runs anew)"
        tables = [report.result_table(told), report.goals_table(told)]
        parts = [part for part in (*tables, *lines) if part is not None]
        parts = [report.verdict_line(told)] if self.quiet else parts
        print_parts(parts, stderr=self.json == STDOUT)


def outputs_chosen(chosen: Mapping[str, Any]) -> Outputs:
    """Return the outputs that the command line or slimnet.toml chose."""
    names = (output.name for output in fields(Outputs))
    return Outputs(**{name: chosen[name] for name in names if name in chosen})


def outputs_named(arguments: Sequence[str]) -> Outputs:
    """Return the files that a command line names, also one that cannot be understood."""
    if arguments[:1] != ["compress"]:
        return Outputs()
    found: dict[str, Any] = {}
    with suppress(SlimnetError):
        found = {n: v for n, v in chosen_values({}).items() if n in NAMED}
    for word, following in zip(arguments, [*arguments[1:], ""], strict=True):
        option, equals, value = word.partition("=")
        if option.removeprefix("--") in NAMED and option.startswith("--"):
            found[option[2:]] = value if equals else following
    return Outputs(**{name: value for name, value in found.items() if value != NONE})
