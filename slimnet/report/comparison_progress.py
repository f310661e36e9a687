"""A progress bar on stderr while the full oracle works; plain lines where there is no terminal.

Lines are held back until the oracle's time is known: bad input is told in one line, alone.
"""

from __future__ import annotations

from types import TracebackType

from rich.console import Console
from rich.progress import (
    BarColumn,
    Progress,
    SpinnerColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from slimnet.records import OracleProgress


class ComparisonProgress:
    """Shows what ``compare`` does; to be used in a ``with`` block and called with its progress."""

    def __init__(self) -> None:
        self._console = Console(stderr=True)
        self._bar = Progress(
            SpinnerColumn(),
            TextColumn("{task.description}"),
            BarColumn(bar_width=20),
            TimeElapsedColumn(),
            TextColumn("left:"),
            TimeRemainingColumn(),
            console=self._console,
            disable=not self._console.is_terminal,
        )
        self._task = self._bar.add_task("", total=None)
        self._held: list[str] = []
        self._begun = False

    def __enter__(self) -> ComparisonProgress:
        self._bar.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._bar.live.transient = error is not None  # its line would stand above the error's
        self._bar.stop()

    def __call__(self, event: str | OracleProgress) -> None:
        """Take what is being done, in words, or how far the oracle is."""
        if isinstance(event, OracleProgress):
            self._bar.update(self._task, total=event.units, completed=event.done)
            return
        self._bar.reset(self._task, total=None, description=event.partition(", ")[0])
        _, estimate, _ = event.partition(": ")
        # on a terminal the bar tells the rest
        if estimate or not self._console.is_terminal:
            self._held.append(event)
        if estimate or self._begun:
            self._begun = True
            for line in self._held:
                self._console.print(line, markup=False, highlight=False, soft_wrap=True)
            self._held.clear()
