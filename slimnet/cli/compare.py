"""``slimnet compare``."""

from __future__ import annotations

from functools import partial
from typing import Annotated, Any

import typer
from rich.console import Console

from slimnet import report
from slimnet.cli.options import (
    DataOption,
    JsonOption,
    ModelArgument,
    chosen_values,
    require_model,
    with_settings,
)
from slimnet.compare import compare as compare_metrics
from slimnet.settings import Settings

DIALS = (
    "arch", "arch_arg", "allow", "trust_pickle", "task", "calibration_data", "calibration_images",
    "oracle_images", "labels", "size", "mean", "std", "channels", "scale", "preprocess",
    "batch_size", "metrics", "repair", "layers", "keep", "seed",
)  # fmt: skip
PIPE_COLUMNS = 200


@partial(with_settings, names=DIALS)
def compare(
    model: ModelArgument,
    data: DataOption,
    sample: Annotated[
        int | None,
        typer.Option(
            help="Measure so many, drawn at random over all layers. (unit: channels; default: all)"
        ),
    ],
    out: Annotated[
        str | None,
        typer.Option(help="Folder for compare.json and compare.svg. (default: none is written)"),
    ],
    metrics: Annotated[
        str | None, typer.Option(help="Saliency metrics to compare, with commas. (default: all)")
    ],
    repair: Annotated[
        bool | None,
        typer.Option("--repair/--no-repair", help="Repair every trial. (default: off)"),
    ],
    json: JsonOption,
    **dials: Any,
) -> None:
    """Show how well each saliency metric orders the channels of MODEL.

    Every channel is removed alone and the change of the loss is measured: what the metrics guess.
    What is not given comes from slimnet.toml, as for compress.

    Example: slimnet compare model.pt --data val/ --sample 200
    """
    chosen = chosen_values(
        {"model": model, "data": data, "metrics": metrics, "repair": repair, **dials}
    )
    require_model("compare", chosen)
    settings = Settings(repair=False).changed({n: v for n, v in chosen.items() if n in DIALS})
    with report.ComparisonProgress() as progress:
        found = compare_metrics(
            chosen["model"], chosen.get("data"), sample=sample, out=out, settings=settings,
            progress=progress,
        )  # fmt: skip
    if json:
        print(report.comparison_json(found))
        return
    terminal = Console().is_terminal
    console = Console() if terminal else Console(width=PIPE_COLUMNS)
    for table in report.comparison_tables(found, plain=not terminal):
        console.print(table)
    for line in report.comparison_lines(found):
        console.print(line, markup=False, highlight=False, soft_wrap=True)
