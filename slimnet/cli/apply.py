"""``slimnet apply``."""

from __future__ import annotations

from functools import partial
from typing import Annotated, Any

import typer
from rich.console import Console

from slimnet import load, report
from slimnet.apply import apply as apply_to_model
from slimnet.cli.options import (
    InputShapeOption,
    ModelArgument,
    chosen_values,
    require_model,
    with_settings,
)
from slimnet.errors import InputError
from slimnet.settings import Settings

DIALS = ("arch", "arch_arg", "allow", "trust_pickle", "opset", "seed")


@partial(with_settings, names=DIALS)
def apply(
    plan: Annotated[
        str | None,
        typer.Argument(
            help="What compress wrote, or the plan.json of it alone. (default: none, must be given)"
        ),
    ],
    model: ModelArgument,
    out: Annotated[
        str | None, typer.Option(help="Folder for the result. (default: none, must be given)")
    ],
    input_shape: InputShapeOption,
    **dials: Any,
) -> None:
    """Remove the channels of a PLAN from MODEL, such as the original, retrained; without data.

    Proven and written as by compress, but not repaired: the weights are the model's own, and no
    accuracy is measured. What is not given comes from slimnet.toml, except for --out.

    Example: slimnet apply slim/plan.json retrained.pt --out slim-retrained
    """
    if plan is None or out is None:
        raise InputError(
            "a plan and an output folder must be given: "
            "slimnet apply slim/plan.json model.pt --out FOLDER"
        )
    shape = None if input_shape is None else load.parse_shape(input_shape)
    chosen = chosen_values({"model": model, **dials})
    require_model("apply PLAN", chosen)
    settings = Settings().changed({n: v for n, v in chosen.items() if n in DIALS})
    with Console(stderr=True).status("slimming, proving, exporting ..."):
        applied = apply_to_model(
            plan, chosen["model"], out=out, input_shape=shape, settings=settings
        )
    console = Console()
    console.print(report.changes_table([report.size_rows(applied.report)]))
    for line in (*report.application_lines(applied.report), f"Written to {applied.folder}/"):
        console.print(line, markup=False, highlight=False, soft_wrap=True)
