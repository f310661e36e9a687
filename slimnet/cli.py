"""The command: options become one library call; errors become one line and an exit code."""

from __future__ import annotations

import inspect
import io
import sys
import traceback
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from typing import Annotated, Any, get_type_hints

import typer
from rich.console import Console

from slimnet import demo as demonstration
from slimnet import load, report
from slimnet.compress import compress as compress_network
from slimnet.errors import InputError, SlimnetError
from slimnet.settings import Settings

INTERRUPTED = 130
app = typer.Typer(
    add_completion=False,
    help="Make a trained network physically smaller and faster within an accuracy budget, "
    "and prove it.\n\nExample: slimnet compress model.pt --data val/ --max-drop 5\n\n"
    "With --verbose an error comes with its traceback.",
)


def _with_settings(function: Callable[..., None]) -> Callable[..., None]:
    """Give the function one option for every dial of Settings, which come as ``dials``.

    Its own parameters may be left out as well. They have no default of their own, because Python
    3.10 would wrap their annotations in an Optional that hides what Typer reads.
    """
    hints = get_type_hints(function, include_extras=True)
    own = [
        p.replace(annotation=hints[p.name], default=None)
        for p in inspect.signature(function).parameters.values()
        if p.kind is not inspect.Parameter.VAR_KEYWORD
    ]
    options = [_option(field.name, field.default, field.metadata) for field in fields(Settings)]
    function.__signature__ = inspect.Signature(own + options)  # type: ignore[attr-defined]
    function.__annotations__ = {p.name: p.annotation for p in own + options}
    return function


def _option(name: str, default: Any, metadata: Any) -> inspect.Parameter:
    kind: Any = str if metadata["many"] else metadata["kind"]
    if metadata["repeat"]:
        kind = list[str]
    shown = ",".join(map(str, default)) if isinstance(default, tuple) else default
    text = metadata["help"]
    if shown not in (None, "", False, True):
        text += f" (default: {shown})"
    flag = "--" + name.replace("_", "-")
    if default is True:
        flag += "/--no-" + name
    number = {"parser": _NUMBERS[kind], "metavar": f"<{kind.__name__}>"} if kind in _NUMBERS else {}
    annotation = Annotated[kind | None, typer.Option(flag, help=text, show_default=False, **number)]
    return inspect.Parameter(
        name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=annotation
    )


def _whole_number(text: str) -> int:
    try:
        return int(text)
    except ValueError:
        raise typer.BadParameter(f"it takes a whole number; got {text!r}") from None


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise typer.BadParameter(f"it takes a number; got {text!r}") from None


_NUMBERS: dict[Any, Callable[[str], float]] = {int: _whole_number, float: _number}


@app.command()
@_with_settings
def compress(
    model: Annotated[str | None, typer.Argument(help="Model file: .pt, .pth or .safetensors.")],
    data: Annotated[
        str | None,
        typer.Option(help="Images with labels: a folder, .npz, torchvision:NAME@ROOT, file.py:f."),
    ],
    out: Annotated[str | None, typer.Option(help="Folder for the result. (default: slim)")],
    **dials: Any,
) -> None:
    """Slim MODEL within the accuracy budget, prove it, and write ONNX, weights, plan and report.

    What is not given comes from slimnet.toml in the working folder,
    or from the table tool.slimnet of its pyproject.toml.

    Example: slimnet compress model.pt --data val/ --max-drop 5
    """
    given = {"model": model, "data": data, "out": out, **dials}
    chosen: dict[str, Any] = {"model": None, "data": None, "out": "slim"}
    chosen |= load.read_configuration(Path.cwd())
    chosen |= {name: value for name, value in given.items() if value not in (None, [])}
    model, data, out = (chosen.pop(name) for name in ("model", "data", "out"))
    if model is None:
        raise InputError(
            'no model given: slimnet compress model.pt, or model = "model.pt" in slimnet.toml'
        )
    settings = Settings().changed(chosen)
    with report.TerminalProgress(settings.max_drop) as progress:
        result = compress_network(
            model, data, settings.max_drop, out=out, settings=settings, progress=progress
        )
    console = Console()
    console.print(report.result_table(result.report))
    for line in (*report.summary_lines(result.report), f"Written to {result.folder}/"):
        console.print(line, markup=False, highlight=False, soft_wrap=True)


@app.command()
def demo(
    folder: Annotated[Path, typer.Argument(help="Where to put the demo.")] = Path("slimnet-demo"),
) -> None:
    """Train a small network on scanned digits, then slim it: about a minute, no download."""
    demonstration.run_demo(folder)


def run(arguments: list[str]) -> int:
    """Run the command with these arguments and return its exit code.

    0 done, 1 internal error, 2 bad input, 4 a proof failed, 130 interrupted.
    """
    verbose = "--verbose" in arguments
    arguments = [argument for argument in arguments if argument != "--verbose"]
    try:
        code = app(arguments or ["--help"], standalone_mode=False)
        if code == INTERRUPTED:  # Typer's answer to a KeyboardInterrupt
            raise KeyboardInterrupt
        return code if isinstance(code, int) else 0
    except SlimnetError as error:
        return _fail(str(error), error.exit_code, verbose)
    except (KeyboardInterrupt, typer.Abort):
        return _fail("interrupted; the same command goes on from there", INTERRUPTED, verbose)
    except Exception as error:
        if hasattr(error, "format_message"):  # Typer's own: a mistyped option or value
            return _fail(f"{error.format_message()} (see --help)", 2, verbose)
        what = f"{type(error).__name__}: {error}".splitlines()[0]
        return _fail(f"internal error, please report it: {what}", 1, verbose)


def _fail(message: str, code: int, verbose: bool) -> int:
    if verbose:
        traceback.print_exc()
    else:
        message = " ".join(message.split())
    print(f"slimnet: error: {message}", file=sys.stderr)
    return code


def main() -> None:
    """Run the command as installed."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # a terminal may lack the signs of the table
            stream.reconfigure(errors="replace")
    sys.exit(run(sys.argv[1:]))
