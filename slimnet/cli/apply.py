"""``slimnet apply``."""

from __future__ import annotations

from functools import partial
from typing import Annotated, Any

import typer
from rich.console import Console

from slimnet import load, report
from slimnet.apply import apply as apply_to_model
from slimnet.cli.chosen import chosen_settings, chosen_values, require_model
from slimnet.cli.options import InputShapeOption, ModelArgument, with_settings
from slimnet.cli.printing import print_parts
from slimnet.errors import InputError

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
    chosen = chosen_values({"model": model, "input_shape": input_shape, **dials})
    require_model("apply PLAN", chosen)
    settings = chosen_settings(chosen, DIALS)
    shape = load.parse_shape(chosen.get("input_shape"))
    with Console(stderr=True).status("slimming, proving, exporting ..."):
        applied = apply_to_model(
            plan, chosen["model"], out=out, input_shape=shape, settings=settings
        )
    table = report.changes_table([report.size_rows(applied.report)])
    lines = report.application_lines(applied.report)
    print_parts([table, *lines, f"Written to {applied.folder}/"])
