"""``slimnet inspect``."""

from __future__ import annotations

from functools import partial
from typing import Any

from rich.console import Console

from slimnet import load, report
from slimnet.cli.chosen import chosen_settings, chosen_values, require_model
from slimnet.cli.options import InputShapeOption, JsonOption, ModelArgument, with_settings
from slimnet.cli.printing import print_parts
from slimnet.inspect import inspect as inspect_network

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
    chosen = chosen_values({"model": model, "input_shape": input_shape, **dials})
    require_model("inspect", chosen)
    settings = chosen_settings(chosen, DIALS)
    shape = load.parse_shape(chosen.get("input_shape"))
    with Console(stderr=True).status("inspecting ..."):
        inspection = inspect_network(chosen["model"], input_shape=shape, settings=settings)
    if json:
        print(report.inspection_json(inspection))
        return
    print_parts(report.inspection_parts(inspection))
