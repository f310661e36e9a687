"""A progress bar on stderr while the search works; plain lines where there is no terminal.

Lines are held back until the search has taken a step: bad input is told in one line, alone.
"""

from __future__ import annotations

from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from slimnet.records import Step
from slimnet.report.numbers import is_share


class TerminalProgress:
    """Shows stages and steps; to be used in a ``with`` block and called with each of them."""

    def __init__(self, max_drop_points: float) -> None:
        self._budget = max_drop_points
        self._console = Console(stderr=True)
        # FORCE_COLOR may say that there is a terminal; a bar needs a real one
        self._drawing = self._console.is_terminal and self._console.file.isatty()
        self._bar = Progress(
            SpinnerColumn(),
            TextColumn("{task.description}"),
            BarColumn(bar_width=20),
            TextColumn("{task.fields[numbers]}"),
            TimeElapsedColumn(),
            console=self._console,
            disable=not self._drawing,
        )
        self._task = self._bar.add_task("", total=None, numbers="")
        self._held: list[str] = []
        self._holding = True

    def __enter__(self) -> TerminalProgress:
        self._bar.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if error is None:
            self._tell_held()
        self._bar.live.transient = error is not None  # its line would stand above the error's
        self._bar.stop()

    def __call__(self, event: str | Step) -> None:
        """Take a stage's name or a finished step."""
        if isinstance(event, str):
            self._bar.reset(self._task, total=None, description=event, numbers="")
            self._held.append(f"{event} ...")
            if not self._holding:
                self._tell_held()
            return
        self._tell_held()
        used = event.drop.upper_points
        self._bar.update(
            self._task,
            total=max(self._budget, 0.01),
            completed=min(max(used, 0.0), self._budget),
            numbers=_numbers(event, self._budget),
        )

    def _tell_held(self) -> None:
        for line in [] if self._drawing else self._held:
            self._console.print(line, highlight=False)
        self._held.clear()
        self._holding = False


def _numbers(step: Step, budget: float) -> str:
    left = budget - step.drop.upper_points
    unit = " %" if is_share(step.drop.quantity) else ""
    return (
        f"step {step.number} · {step.conv_weights_removed_percent:.1f} % conv weights gone · "
        f"{step.drop.quantity} {step.drop.slim_percent:.1f}{unit} · {left:.1f} points left"
        + (" · taken back" if step.taken_back else "")
    )
