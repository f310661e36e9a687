"""How far the full oracle is, and how long it will take."""

from __future__ import annotations

from rich.progress import TextColumn, TimeElapsedColumn, TimeRemainingColumn

from slimnet.records import OracleProgress
from slimnet.report.bar import HeldBar


class ComparisonProgress(HeldBar):
    """Shows what ``compare`` does; to be used in a ``with`` block and called with its progress."""

    def __init__(self) -> None:
        super().__init__(TimeElapsedColumn(), TextColumn("left:"), TimeRemainingColumn())

    def __call__(self, event: str | OracleProgress) -> None:
        """Take what is being done, in words, or how far the oracle is."""
        if isinstance(event, OracleProgress):
            self._bar.update(self._task, total=event.units, completed=event.done)
            return
        self._bar.reset(self._task, total=None, description=event.partition(", ")[0])
        _, estimate, _ = event.partition(": ")
        # on a terminal the bar tells the rest
        if estimate or not self._drawing:
            self._tell(event)
        if estimate:
            self._let_go()
