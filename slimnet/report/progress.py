"""Progress at the terminal: the stage, the last step, the budget left and the time so far."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import TypeVar

from rich.console import Console
from rich.progress import (
    BarColumn,
    ProgressColumn,
    SpinnerColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.progress import (
    Progress as RichProgress,
)

from slimnet.records import OracleProgress, Step
from slimnet.report.numbers import is_share

Progress = Callable[["str | Step"], None]
"""Called with the name of each stage, and with each finished step of the search."""
Bar = TypeVar("Bar", bound="ProgressBar")
NOTE = "note: "
"""A sentence that begins so is no stage, and stays above the bar."""


class StageClock:
    """Reports each stage to ``progress`` and measures its ``seconds``."""

    def __init__(self, progress: Progress | None) -> None:
        self.progress: Progress = progress or (lambda _: None)
        self.seconds: dict[str, float] = {}

    @contextmanager
    def __call__(self, stage: str) -> Iterator[None]:
        """Time the block as ``stage``."""
        self.progress(stage)
        started = time.perf_counter()
        yield
        self.seconds[stage] = time.perf_counter() - started


class ProgressBar:
    """A bar with lines above it, on stderr, for use in a ``with`` block; lines alone in a pipe.

    It holds back its lines until the first ``_print_held``, because an error soon after the start
    should stand alone.
    """

    def __init__(self, *columns: ProgressColumn) -> None:
        self._console = Console(stderr=True)
        # FORCE_COLOR makes any output a terminal for rich; a bar needs a real one
        self._drawing = self._console.is_terminal and self._console.file.isatty()
        self._bar = RichProgress(
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
            self._print_held()
        self._bar.live.transient = error is not None  # or the bar would stand above the error
        self._bar.stop()

    def _print(self, line: str) -> None:
        """Print a line, unless lines are still held back."""
        self._held.append(line)
        if not self._holding:
            self._print_held()

    def _print_held(self) -> None:
        """Print the lines held back, and hold back no more."""
        for line in self._held:
            self._console.print(line, markup=False, highlight=False, soft_wrap=True)
        self._held.clear()
        self._holding = False


class TerminalProgress(ProgressBar):
    """Shows the progress of ``compress``: stages and steps."""

    def __init__(self, max_drop_points: float) -> None:
        super().__init__(TextColumn("{task.fields[numbers]}"), TimeElapsedColumn())
        self._budget = max_drop_points

    def __call__(self, event: str | Step) -> None:
        """Show a stage by its name, a note, or a finished step."""
        if isinstance(event, str) and event.startswith(NOTE):
            self._print(event)
            return
        if isinstance(event, str):
            self._bar.reset(self._task, total=None, description=event, numbers="")
            if not self._drawing:
                self._print(f"{event} ...")
            return
        self._print_held()
        self._bar.update(
            self._task,
            total=max(self._budget, 0.01),
            completed=min(max(event.drop.upper_points, 0.0), self._budget),
            numbers=_step_numbers(event, self._budget),
        )


def _step_numbers(step: Step, budget: float) -> str:
    left = budget - step.drop.upper_points
    unit = " %" if is_share(step.drop.quantity) else ""
    return (
        f"step {step.number} · {step.conv_weights_removed_percent:.1f} % conv weights gone · "
        f"{step.drop.quantity} {step.drop.slim_percent:.1f}{unit} · {left:.1f} points left"
        + (" · taken back" if step.taken_back else "")
    )


class ComparisonProgress(ProgressBar):
    """Shows the progress of ``compare``: stages, and how far the oracle is."""

    def __init__(self) -> None:
        super().__init__(TimeElapsedColumn(), TextColumn("left:"), TimeRemainingColumn())

    def __call__(self, event: str | OracleProgress) -> None:
        """Show a stage, "name, details", or the oracle's progress."""
        if isinstance(event, OracleProgress):
            self._print_held()
            self._bar.update(self._task, total=event.units, completed=event.done)
            return
        self._bar.reset(self._task, total=None, description=event.partition(", ")[0])
        if not self._drawing:
            self._print(event)
