"""``slimnet compress``."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from slimnet import report
from slimnet.cli.options import (
    DataOption,
    ModelArgument,
    chosen_values,
    require_model,
    with_settings,
)
from slimnet.cli.outputs import OUT, Outputs
from slimnet.compress import compress as compress_network
from slimnet.settings import Settings

MISSED = 3


@with_settings
def compress(
    model: ModelArgument,
    data: DataOption,
    out: Annotated[str | None, typer.Option(help="Folder for the result. (default: slim)")],
    summary: Annotated[
        str | None,
        typer.Option(
            metavar="FILE",
            help="Append the verdict as Markdown, as for $GITHUB_STEP_SUMMARY. (default: none)",
        ),
    ],
    junit: Annotated[
        str | None,
        typer.Option(
            metavar="FILE",
            help="Write a JUnit test case for each goal, budget and proof. (default: none)",
        ),
    ],
    json: Annotated[
        str | None,
        typer.Option(
            metavar="FILE",
            help="Write a copy of report.json; -: to stdout, alone. (default: none)",
        ),
    ],
    quiet: Annotated[
        bool | None,
        typer.Option("--quiet", help="Print the verdict's line only. (default: all)"),
    ],
    no_progress: Annotated[
        bool | None,
        typer.Option("--no-progress", help="Show no progress on stderr. (default: shown)"),
    ],
    **dials: Any,
) -> None:
    """Slim MODEL within the accuracy budget, prove it, and write ONNX, weights, plan and report.

    What is not given comes from slimnet.toml in the working folder,
    or from the table tool.slimnet of its pyproject.toml.
    Exit code: 0 all goals met, 2 bad input, 3 a goal or the budget missed, 4 a proof failed.

    Example: slimnet compress model.pt --data val/ --max-drop 5
    """
    chosen = {"out": OUT} | chosen_values({"model": model, "data": data, "out": out, **dials})
    require_model("compress", chosen)
    model, data, out = (chosen.pop(name, None) for name in ("model", "data", "out"))
    settings = Settings().changed(chosen)
    outputs = Outputs(out, summary, junit, json, bool(quiet), bool(no_progress))
    outputs.require_usable()
    with outputs.progress(settings.max_drop) as progress:
        result = compress_network(
            model, data, settings.max_drop, out=out, settings=settings, progress=progress
        )
    outputs.tell(result)
    if report.anything_missed(result.report):
        raise typer.Exit(MISSED)
