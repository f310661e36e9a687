"""How far a search is: its stage, its last step and what is left of the budget."""

from __future__ import annotations

from rich.progress import TextColumn, TimeElapsedColumn

from slimnet.records import Step
from slimnet.report.bar import HeldBar
from slimnet.report.numbers import is_share


class TerminalProgress(HeldBar):
    """Shows stages and steps; to be used in a ``with`` block and called with each of them."""

    def __init__(self, max_drop_points: float) -> None:
        super().__init__(TextColumn("{task.fields[numbers]}"), TimeElapsedColumn())
        self._budget = max_drop_points

    def __call__(self, event: str | Step) -> None:
        """Take a stage's name or a finished step."""
        if isinstance(event, str):
            self._bar.reset(self._task, total=None, description=event, numbers="")
            if not self._drawing:
                self._tell(f"{event} ...")
            return
        self._let_go()
        used = event.drop.upper_points
        self._bar.update(
            self._task,
            total=max(self._budget, 0.01),
            completed=min(max(used, 0.0), self._budget),
            numbers=_numbers(event, self._budget),
        )


def _numbers(step: Step, budget: float) -> str:
    left = budget - step.drop.upper_points
    unit = " %" if is_share(step.drop.quantity) else ""
    return (
        f"step {step.number} · {step.conv_weights_removed_percent:.1f} % conv weights gone · "
        f"{step.drop.quantity} {step.drop.slim_percent:.1f}{unit} · {left:.1f} points left"
        + (" · taken back" if step.taken_back else "")
    )
