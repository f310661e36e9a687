"""How results are printed: tables fit a terminal, and are whole where there is none."""

from __future__ import annotations

from collections.abc import Iterable

from rich.console import Console, RenderableType
from rich.table import Table

PIPE_COLUMNS = 200


def print_parts(parts: Iterable[RenderableType], *, stderr: bool = False) -> None:
    """Print tables as wide as the terminal is, without lines in a pipe, and text as it is."""
    console = Console(stderr=stderr)
    if not console.is_terminal:
        console = Console(stderr=stderr, width=PIPE_COLUMNS)
    for part in parts:
        line = isinstance(part, str)
        if isinstance(part, Table) and not console.is_terminal:
            part.box = None
        console.print(part, markup=False, highlight=not line, soft_wrap=line)
