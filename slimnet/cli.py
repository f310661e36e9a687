"""The command: options become one library call; errors become one line and an exit code."""

from __future__ import annotations

import inspect
import io
import sys
import traceback
from collections.abc import Callable, Container, Mapping
from dataclasses import fields
from functools import partial
from pathlib import Path
from typing import Annotated, Any, get_type_hints

import typer
from rich.console import Console

from slimnet import demo as demonstration
from slimnet import load, report
from slimnet.compress import compress as compress_network
from slimnet.errors import InputError, ProofError, SlimnetError
from slimnet.inspect import inspect as inspect_network
from slimnet.settings import Settings
from slimnet.verify import verify as verify_result

INTERRUPTED = 130
VERIFY_DIALS = ("arch", "arch_arg", "allow", "trust_pickle", "calibration_data", "preprocess")
INSPECT_DIALS = ("arch", "arch_arg", "allow", "trust_pickle", "layers", "seed")
app = typer.Typer(
    add_completion=False,
    help="Make a trained network physically smaller and faster within an accuracy budget, "
    "and prove it.\n\nExample: slimnet compress model.pt --data val/ --max-drop 5\n\n"
    "With --verbose an error comes with its traceback.",
)


def _with_settings(
    function: Callable[..., None], names: Container[str] | None = None
) -> Callable[..., None]:
    """Give the function an option for every dial of Settings, or for ``names``, as ``dials``.

    Its own parameters may be left out as well. They have no default of their own, because Python
    3.10 would wrap their annotations in an Optional that hides what Typer reads.
    """
    hints = get_type_hints(function, include_extras=True)
    own = [
        p.replace(annotation=hints[p.name], default=None)
        for p in inspect.signature(function).parameters.values()
        if p.kind is not inspect.Parameter.VAR_KEYWORD
    ]
    options = [
        _option(dial.name, dial.default, dial.metadata)
        for dial in fields(Settings)
        if names is None or dial.name in names
    ]
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
    chosen = {"out": "slim"} | _chosen(
        "compress", {"model": model, "data": data, "out": out, **dials}
    )
    model, data, out = (chosen.pop(name, None) for name in ("model", "data", "out"))
    settings = Settings().changed(chosen)
    with report.TerminalProgress(settings.max_drop) as progress:
        result = compress_network(
            model, data, settings.max_drop, out=out, settings=settings, progress=progress
        )
    console = Console()
    console.print(report.result_table(result.report))
    for line in (*report.summary_lines(result.report), f"Written to {result.folder}/"):
        console.print(line, markup=False, highlight=False, soft_wrap=True)


def _chosen(command: str, given: Mapping[str, Any]) -> dict[str, Any]:
    """Return what was given, over what the working folder's configuration says."""
    chosen = load.read_configuration(Path.cwd())
    chosen |= {name: value for name, value in given.items() if value not in (None, [])}
    if chosen.get("model") is None:
        raise InputError(
            f'no model given: slimnet {command} model.pt, or model = "model.pt" in slimnet.toml'
        )
    return chosen


@app.command("inspect")
@partial(_with_settings, names=INSPECT_DIALS)
def inspect_model(
    model: Annotated[str | None, typer.Argument(help="Model file: .pt, .pth or .safetensors.")],
    input_shape: Annotated[
        str | None,
        typer.Option(help="Shape of one input, such as 3,224,224. (default: guessed)"),
    ],
    json: Annotated[bool | None, typer.Option("--json", help="Print one JSON document instead.")],
    **dials: Any,
) -> None:
    """Show what could be removed from MODEL, and what not and why, without any data.

    Nothing is changed or written. What is not given comes from slimnet.toml, as for compress.

    Example: slimnet inspect model.pt --input-shape 3,224,224
    """
    shape = None if input_shape is None else load.parse_shape(input_shape)
    chosen = _chosen("inspect", {"model": model, **dials})
    settings = Settings().changed({n: v for n, v in chosen.items() if n in INSPECT_DIALS})
    with Console(stderr=True).status("inspecting ..."):
        inspection = inspect_network(chosen["model"], input_shape=shape, settings=settings)
    if json:
        print(report.inspection_json(inspection))
        return
    console = Console()
    for part in report.inspection_parts(inspection):
        console.print(part)


@app.command("verify")
@partial(_with_settings, names=VERIFY_DIALS)
def verify_folder(
    folder: Annotated[str | None, typer.Argument(help="What compress wrote. (default: slim)")],
    model: Annotated[
        str | None, typer.Option(help="The original: plan and weights must make the slim one.")
    ],
    data: Annotated[
        str | None, typer.Option(help="The data of the run: the drop is measured again.")
    ],
    **dials: Any,
) -> None:
    """Check a finished FOLDER again, at another place and time; the exit code is 4 if it fails.

    Nothing in the folder is executed or changed.

    Example: slimnet verify slim --model model.pt --data val/
    """
    given = {name: value for name, value in dials.items() if value not in (None, [])}
    settings = Settings().changed(given)
    found = verify_result(folder or "slim", model=model, data=data, settings=settings)
    console = Console()
    console.print(report.checks_table(found))
    if not found.holds:
        failed = ", ".join(check.name for check in found.checks if not check.holds)
        raise ProofError(f"{found.folder} is not what was measured and proven: {failed}")
    print(f"{found.folder}: every check holds.")


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
        return _fail("interrupted; nothing was written", INTERRUPTED, verbose)
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
