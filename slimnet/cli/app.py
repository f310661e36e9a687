"""The command: one line and an exit code for every error."""

import errno
import io
import os
import sys
import traceback
from difflib import SequenceMatcher
from typing import Annotated, Any

import typer
from typer.core import TyperCommand, TyperGroup

from slimnet.cli.commands import apply, bench, compare, compress, demo, init, inspect, verify
from slimnet.cli.outputs import files_named, report_failure
from slimnet.errors import SlimnetError

INTERRUPTED = 130
DISK_TROUBLE = (errno.ENOSPC, errno.EDQUOT, errno.EROFS)


class _WithoutTypes:
    """A command whose help does not show Python's types: unit and default say more."""

    def get_params(self, ctx: Any) -> Any:
        """Return the parameters, each without its type."""
        parameters = super().get_params(ctx)  # type: ignore[misc]
        for parameter in parameters:
            parameter.display_type_rich = lambda ctx: None
        return parameters


class _Command(_WithoutTypes, TyperCommand):
    pass


class _Group(_WithoutTypes, TyperGroup):
    pass


app = typer.Typer(
    cls=_Group,
    add_completion=False,
    help="Make a trained network physically smaller and faster within an accuracy budget, "
    "and prove it.\n\nExample: slimnet compress model.pt --data val/ --max-drop 5",
)
for command in (compress, inspect, compare, verify, apply, bench, init, demo):
    app.command(cls=_Command)(command)


def _print_version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version

        print(f"slimnet {version('slimnet')}")
        raise typer.Exit


@app.callback()
def _options_of_its_own(
    version: Annotated[
        bool,
        typer.Option(
            "--version", callback=_print_version, is_eager=True, help="Show the version and exit."
        ),
    ] = False,
    verbose: Annotated[
        bool,
        typer.Option("--verbose", help="Show an error with its traceback; may stand anywhere."),
    ] = False,
) -> None:
    """Take what stands before a sub-command."""


def run(arguments: list[str]) -> int:
    """Run the command with these arguments and return its exit code.

    0 done, 1 internal error, 2 bad input, 3 a goal or the budget missed, 4 a proof failed, 130
    interrupted.
    """
    verbose = "--verbose" in arguments  # before or behind the sub-command
    arguments = [argument for argument in arguments if argument != "--verbose"]
    try:
        code = app(arguments or ["--help"], standalone_mode=False)
        if code == INTERRUPTED:  # Typer's answer to a KeyboardInterrupt
            raise KeyboardInterrupt
        return code if isinstance(code, int) else 0
    except (Exception, KeyboardInterrupt) as error:
        message, code = _explained(error, arguments[:1] == ["compress"])
        if verbose:
            traceback.print_exc()
        else:
            message = " ".join(message.split())
        print(f"slimnet: error: {message}", file=sys.stderr)
        report_failure(files_named(arguments), message, code)
        return code


def _explained(error: BaseException, resumes: bool) -> tuple[str, int]:
    """Return the message for the user, and the exit code."""
    if isinstance(error, SlimnetError):
        return str(error), error.exit_code
    if isinstance(error, (KeyboardInterrupt, typer.Abort)):
        return "interrupted" + "; the same command goes on from there" * resumes, INTERRUPTED
    if isinstance(error, OSError) and error.errno in DISK_TROUBLE:
        return f"the disk cannot be written: {error}; nothing was written", 2
    if near := getattr(error, "possibilities", None):  # Typer's own: a mistyped option
        mistyped = getattr(error, "option_name", "")
        closest = max(near, key=lambda name: SequenceMatcher(None, name, mistyped).ratio())
        return f"no such option: {mistyped}; did you mean {closest}? (see --help)", 2
    if hasattr(error, "format_message"):  # Typer's own: an argument that does not fit
        return f"{error.format_message()} (see --help)", 2
    what = f"{type(error).__name__}: {error}".splitlines()[0]
    return f"internal error, please report it: {what}", 1


class _LastingFile(io.FileIO):
    """A file that drops what is written after its reader has gone."""

    def write(self, data: Any) -> int:
        """Write the bytes, or drop them; return how many."""
        try:
            return super().write(data)
        except BrokenPipeError:
            return memoryview(data).nbytes


def _lasting(stream: Any) -> Any:
    """Return a stream that lets the work go on when ``| head`` has read enough.

    A terminal and a stream without a file stay as they are.
    """
    if stream is None or stream.isatty():
        return stream
    stream.flush()
    file = io.BufferedWriter(_LastingFile(stream.fileno(), "wb", closefd=False))
    return io.TextIOWrapper(file, stream.encoding, "replace", line_buffering=True)


def main() -> None:
    """Run the command as installed."""
    # Large pages for large tensors, if torch comes after this: inspecting a network of gigabytes
    # spends less time on getting memory.
    os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")
    sys.stdout, sys.stderr = map(_lasting, (sys.stdout, sys.stderr))
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # a terminal may lack the signs of the table
            stream.reconfigure(errors="replace")
    sys.exit(run(sys.argv[1:]))
