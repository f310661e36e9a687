"""``slimnet compress``."""

from __future__ import annotations

from dataclasses import fields
from functools import partial
from typing import Annotated, Any

import typer

from slimnet import report
from slimnet.cli.chosen import chosen_settings, chosen_values, require_model
from slimnet.cli.options import DataOption, ModelArgument, with_settings
from slimnet.cli.outputs import OUT, outputs_chosen
from slimnet.compress import compress as compress_network
from slimnet.settings import Settings

MISSED = 3
_FILE = partial(typer.Option, metavar="FILE")


@with_settings
def compress(
    model: ModelArgument,
    data: DataOption,
    out: Annotated[str | None, typer.Option(help="Folder for the result. (default: slim)")],
    summary: Annotated[
        str | None,
        _FILE(help="Append the verdict as Markdown, as for $GITHUB_STEP_SUMMARY. (default: none)"),
    ],
    junit: Annotated[
        str | None,
        _FILE(help="Write a JUnit test case for each goal, budget and proof. (default: none)"),
    ],
    json: Annotated[
        str | None,
        _FILE(help="Write a copy of report.json; -: to stdout, alone. (default: none)"),
    ],
    quiet: Annotated[
        bool | None,
        typer.Option("--quiet/--no-quiet", help="Print the verdict's line only. (default: all)"),
    ],
    progress: Annotated[
        bool | None,
        typer.Option("--progress/--no-progress", help="Show it on stderr. (default: on)"),
    ],
    **dials: Any,
) -> None:
    """Slim MODEL within the accuracy budget, prove it, and write ONNX, weights, plan and report.

    What is not given comes from slimnet.toml in the working folder,
    or from the table tool.slimnet of its pyproject.toml; an option takes it back with "none".
    Exit code: 0 all goals met, 2 bad input, 3 a goal or the budget missed, 4 a proof failed.

    Example: slimnet compress model.pt --data val/ --max-drop 5
    """
    own = {
        "model": model, "data": data, "out": out, "summary": summary, "junit": junit, "json": json,
        "quiet": quiet, "progress": progress,
    }  # fmt: skip
    chosen = {"out": OUT} | chosen_values({**own, **dials})
    require_model("compress", chosen)
    settings = chosen_settings(chosen, {dial.name for dial in fields(Settings)})
    outputs = outputs_chosen(chosen)
    outputs.require_usable()
    with outputs.show_progress(settings.max_drop) as shown:
        result = compress_network(
            chosen["model"], chosen.get("data"), settings.max_drop, out=outputs.out,
            settings=settings, progress=shown,
        )  # fmt: skip
    outputs.tell(result)
    if report.anything_missed(result.report):
        raise typer.Exit(MISSED)
