"""``slimnet inspect``."""

from __future__ import annotations

from functools import partial
from typing import Any

from rich.console import Console

from slimnet import load, report
from slimnet.cli.options import (
    InputShapeOption,
    JsonOption,
    ModelArgument,
    chosen_values,
    require_model,
    with_settings,
)
from slimnet.inspect import inspect as inspect_network
from slimnet.settings import Settings

DIALS = ("arch", "arch_arg", "allow", "trust_pickle", "layers", "seed")


@partial(with_settings, names=DIALS)
def inspect(
    model: ModelArgument,
    input_shape: InputShapeOption,
    json: JsonOption,
    **dials: Any,
) -> None:
    """Show what could be removed from MODEL, and what not and why, without any data.

    Nothing is changed or written. What is not given comes from slimnet.toml, as for compress.

    Example: slimnet inspect model.pt --input-shape 3,224,224
    """
    shape = None if input_shape is None else load.parse_shape(input_shape)
    chosen = chosen_values({"model": model, **dials})
    require_model("inspect", chosen)
    settings = Settings().changed({n: v for n, v in chosen.items() if n in DIALS})
    with Console(stderr=True).status("inspecting ..."):
        inspection = inspect_network(chosen["model"], input_shape=shape, settings=settings)
    if json:
        print(report.inspection_json(inspection))
        return
    console = Console()
    for part in report.inspection_parts(inspection):
        console.print(part)
