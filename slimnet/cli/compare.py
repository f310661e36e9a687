"""``slimnet compare``."""

from __future__ import annotations

from functools import partial
from typing import Annotated, Any

import typer

from slimnet import report
from slimnet.cli.chosen import chosen_settings, chosen_values, require_model
from slimnet.cli.options import DataOption, JsonOption, ModelArgument, with_settings
from slimnet.cli.printing import print_parts
from slimnet.compare import compare as compare_metrics
from slimnet.settings import Settings

DIALS = (
    "arch", "arch_arg", "allow", "trust_pickle", "task", "calibration_data", "calibration_images",
    "oracle_images", "labels", "size", "mean", "std", "channels", "scale", "preprocess",
    "batch_size", "metrics", "repair", "layers", "keep", "seed",
)  # fmt: skip


@partial(with_settings, names=DIALS)
def compare(
    model: ModelArgument,
    data: DataOption,
    sample: Annotated[
        int | None,
        typer.Option(
            help="Measure so many, drawn evenly over all layers. (unit: channels; default: all)"
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
    own = {"model": model, "data": data, "sample": sample, "metrics": metrics, "repair": repair}
    chosen = chosen_values({**own, **dials})
    require_model("compare", chosen)
    settings = chosen_settings(chosen, DIALS, Settings(repair=False))
    with report.ComparisonProgress() as progress:
        found = compare_metrics(
            chosen["model"], chosen.get("data"), sample=chosen.get("sample"), out=out,
            settings=settings, progress=progress,
        )  # fmt: skip
    if json:
        print(report.comparison_json(found))
        return
    print_parts([*report.comparison_tables(found), *report.comparison_lines(found)])
