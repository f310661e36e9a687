"""``slimnet compress``."""

from __future__ import annotations

from typing import Annotated, Any

import typer
from rich.console import Console

from slimnet import report
from slimnet.cli.options import ModelArgument, chosen_values, require_model, with_settings
from slimnet.compress import compress as compress_network
from slimnet.settings import Settings


@with_settings
def compress(
    model: ModelArgument,
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
    chosen = {"out": "slim"} | chosen_values({"model": model, "data": data, "out": out, **dials})
    require_model("compress", chosen)
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
