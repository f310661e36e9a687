"""``slimnet demo``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from slimnet import demo as demonstration


def demo(
    folder: Annotated[
        Path,
        typer.Argument(help="Where to put the demo. (default: slimnet-demo)", show_default=False),
    ] = Path("slimnet-demo"),
) -> None:
    """Train a small network on scanned digits, then slim it: about a minute, no download.

    Example: slimnet demo
    """
    demonstration.run_demo(folder)
