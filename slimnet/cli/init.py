"""``slimnet init``."""

from __future__ import annotations

from typing import Annotated

import typer

from slimnet.init import write_configuration


def init(
    force: Annotated[
        bool,
        typer.Option("--force", help="Replace one that is there. (default: off)"),
    ] = False,
) -> None:
    """Write a slimnet.toml with every dial, commented out, into the working folder.

    Example: slimnet init
    """
    print(f"Written to {write_configuration(force=force)}: every line is commented out.")
