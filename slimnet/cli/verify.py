"""``slimnet verify``."""

from __future__ import annotations

from functools import partial
from typing import Annotated, Any

import typer

from slimnet import report
from slimnet.cli.chosen import chosen_settings, chosen_values
from slimnet.cli.options import with_settings
from slimnet.cli.printing import print_parts
from slimnet.errors import ProofError
from slimnet.verify import verify as verify_result

DIALS = ("arch", "arch_arg", "allow", "trust_pickle", "calibration_data", "preprocess")


@partial(with_settings, names=DIALS)
def verify(
    folder: Annotated[str | None, typer.Argument(help="What compress wrote. (default: slim)")],
    model: Annotated[
        str | None,
        typer.Option(
            help="The original: plan and weights must make the slim one. (default: not checked)"
        ),
    ],
    data: Annotated[
        str | None,
        typer.Option(
            help="The data of the run: the drop is measured again. (default: not measured)"
        ),
    ],
    **dials: Any,
) -> None:
    """Check a finished FOLDER again, at another place and time; the exit code is 4 if it fails.

    Nothing in the folder is executed or changed. What is not given comes from slimnet.toml.

    Example: slimnet verify slim --model model.pt --data val/
    """
    given = {"out": folder, "model": model, "data": data, **dials}
    chosen = {"out": "slim"} | chosen_values(given)
    settings = chosen_settings(chosen, DIALS)
    found = verify_result(
        chosen["out"], model=chosen.get("model"), data=chosen.get("data"), settings=settings
    )
    print_parts([report.checks_table(found)])
    if not found.holds:
        failed = ", ".join(check.name for check in found.checks if not check.holds)
        raise ProofError(f"{found.folder} is not what was measured and proven: {failed}")
    print(f"{found.folder}: every check holds.")
