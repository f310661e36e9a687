"""The command: options become one library call; errors become one line and an exit code."""

from __future__ import annotations

import inspect
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
from slimnet.errors import SlimnetError
from slimnet.settings import Settings

app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    help="Make a trained network physically smaller and faster within an accuracy budget, "
    "and prove it.\n\nExample: slimnet compress model.pt --data val/ --max-drop 5",
)


def _with_settings(function: Callable[..., None]) -> Callable[..., None]:
    """Give the function one option for every dial of Settings, which come as ``dials``."""
    hints = get_type_hints(function, include_extras=True)
    own = [
        p.replace(annotation=hints[p.name])
        for p in inspect.signature(function).parameters.values()
        if p.kind is not inspect.Parameter.VAR_KEYWORD
    ]
    options = [_option(field.name, field.default, field.metadata) for field in fields(Settings)]
    function.__signature__ = inspect.Signature(own + options)  # type: ignore[attr-defined]
    function.__annotations__ = {p.name: p.annotation for p in own + options}
    return function


def _option(name: str, default: Any, metadata: Any) -> inspect.Parameter:
    kind: Any = bool if isinstance(default, bool) else type(default)
    if metadata["item"] or kind not in (bool, int, float):
        kind = {"size": int, "step": int, "scale": float}.get(name, str)
    if metadata["repeat"]:
        kind = list[str]
    shown = ",".join(map(str, default)) if isinstance(default, tuple) else default
    text = metadata["help"] if shown in (None, "", False) else f"{metadata['help']} [{shown}]"
    flag = "--" + name.replace("_", "-")
    annotation = Annotated[kind | None, typer.Option(flag, help=text, show_default=False)]
    return inspect.Parameter(
        name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=annotation
    )


@app.command()
@_with_settings
def compress(
    model: Annotated[str, typer.Argument(help="Model file: .pt, .pth or .safetensors.")],
    data: Annotated[
        str | None,
        typer.Option(help="Images with labels: a folder, .npz, torchvision:NAME@ROOT, file.py:f."),
    ] = None,
    out: Annotated[str | None, typer.Option(help="Folder for the result. [slim]")] = None,
    **dials: Any,
) -> None:
    """Slim MODEL within the accuracy budget, prove it, and write ONNX, weights, plan and report.

    Options that are not given come from slimnet.toml, or [tool.slimnet] of pyproject.toml, in the
    working folder.

    Example: slimnet compress model.pt --data val/ --max-drop 5
    """
    given = {name: value for name, value in dials.items() if value not in (None, [])}
    settings = {"data": data, "out": out}
    given |= {name: value for name, value in settings.items() if value is not None}
    chosen = {"out": "slim", **load.read_configuration(Path.cwd()), **given}
    with report.TerminalProgress(float(chosen.get("max_drop", Settings.max_drop))) as progress:
        result = compress_network(model, progress=progress, **chosen)
    console = Console()
    console.print(report.result_table(result.report))
    for line in report.summary_lines(result.report):
        console.print(line, markup=False, highlight=False)
    console.print(f"Written to {result.folder}/", markup=False, highlight=False)


@app.command()
def demo(
    folder: Annotated[Path, typer.Argument(help="Where to put the demo.")] = Path("slimnet-demo"),
) -> None:
    """Train a small network on scanned digits, then slim it: about a minute, no download."""
    demonstration.run_demo(folder)


def run(arguments: list[str]) -> int:
    """Run the command with these arguments and return its exit code.

    0 done, 1 internal error, 2 bad input, 4 a proof failed.
    """
    verbose = "--verbose" in arguments
    arguments = [argument for argument in arguments if argument != "--verbose"]
    try:
        code = app(arguments, standalone_mode=False)
        return code if isinstance(code, int) else 0
    except SlimnetError as error:
        return _fail(str(error), error.exit_code, verbose)
    except KeyboardInterrupt:
        return _fail("interrupted; nothing was written", 130, verbose)
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
    sys.exit(run(sys.argv[1:]))
