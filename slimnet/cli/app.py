"""The command: every sub-command, and one line and an exit code for every error."""

from __future__ import annotations

import errno
import io
import re
import sys
import traceback
from difflib import SequenceMatcher
from importlib.metadata import version
from typing import Annotated

import typer

from slimnet.cli.apply import apply
from slimnet.cli.bench import bench
from slimnet.cli.compare import compare
from slimnet.cli.compress import compress
from slimnet.cli.demo import demo
from slimnet.cli.init import init
from slimnet.cli.inspect import inspect
from slimnet.cli.lasting_pipe import lasting_pipe
from slimnet.cli.outputs import outputs_named
from slimnet.cli.verify import verify
from slimnet.errors import SlimnetError

INTERRUPTED = 130
DISK_TROUBLE = (errno.ENOSPC, errno.EDQUOT, errno.EROFS)
NOT_WHOLE = re.compile(r"Input should be a valid integer[^;.]*")
app = typer.Typer(
    add_completion=False,
    help="Make a trained network physically smaller and faster within an accuracy budget, "
    "and prove it.\n\nExample: slimnet compress model.pt --data val/ --max-drop 5",
)
for command in (compress, inspect, compare, verify, apply, bench, init, demo):
    app.command()(command)


def _tell_version(wanted: bool) -> None:
    if wanted:
        print(f"slimnet {version('slimnet')}")
        raise typer.Exit


@app.callback()
def _options_of_its_own(
    version: Annotated[
        bool,
        typer.Option(
            "--version", callback=_tell_version, is_eager=True, help="Show the version and exit."
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
        outputs_named(arguments).tell_failure(message, code)
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
    if hasattr(error, "format_message"):  # Typer's own: an option or value that does not fit
        told = NOT_WHOLE.sub("it takes a whole number", error.format_message())
        return f"{told} (see --help)", 2
    what = f"{type(error).__name__}: {error}".splitlines()[0]
    return f"internal error, please report it: {what}", 1


def main() -> None:
    """Run the command as installed."""
    sys.stdout, sys.stderr = map(lasting_pipe, (sys.stdout, sys.stderr))
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # a terminal may lack the signs of the table
            stream.reconfigure(errors="replace")
    sys.exit(run(sys.argv[1:]))
