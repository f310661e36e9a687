"""A bar on stderr with lines beside it; plain lines where there is no terminal.

Lines are held back until whoever shows them lets go: bad input is told in one line, alone.
"""

from __future__ import annotations

from types import TracebackType
from typing import TypeVar

from rich.console import Console
from rich.progress import BarColumn, Progress, ProgressColumn, SpinnerColumn, TextColumn

Bar = TypeVar("Bar", bound="HeldBar")


class HeldBar:
    """What both kinds of progress share; to be used in a ``with`` block."""

    def __init__(self, *columns: ProgressColumn) -> None:
        self._console = Console(stderr=True)
        # FORCE_COLOR may say that there is a terminal; a bar needs a real one
        self._drawing = self._console.is_terminal and self._console.file.isatty()
        self._bar = Progress(
            SpinnerColumn(),
            TextColumn("{task.description}"),
            BarColumn(bar_width=20),
            *columns,
            console=self._console,
            disable=not self._drawing,
        )
        self._task = self._bar.add_task("", total=None, numbers="")
        self._held: list[str] = []
        self._holding = True

    def __enter__(self: Bar) -> Bar:
        self._bar.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if error is None:
            self._let_go()
        self._bar.live.transient = error is not None  # its line would stand above the error's
        self._bar.stop()

    def _tell(self, line: str) -> None:
        """Print a line, now or once lines are let go."""
        self._held.append(line)
        if not self._holding:
            self._let_go()

    def _let_go(self) -> None:
        for line in self._held:
            self._console.print(line, markup=False, highlight=False, soft_wrap=True)
        self._held.clear()
        self._holding = False
