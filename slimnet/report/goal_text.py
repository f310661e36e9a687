"""Goals as people read them: a word, never a colour alone, says whether one was met."""

from __future__ import annotations

from rich.table import Table
from rich.text import Text

from slimnet.records import Goal, Report
from slimnet.report.goals import budget_missed, missed_goals

DECIMALS, MOST_DECIMALS = 4, 15
GOAL_HEADS = ("goal", "", "wanted", "got", "of")


def goal_rows(report: Report) -> list[tuple[str, ...]]:
    """Return every goal: its option, whether it was met, wanted, got, the unit; as text."""
    return [
        (goal.name.replace("_", "-"), outcome(goal.met), _wanted(goal), _got(goal), goal.unit)
        for goal in report.goals
    ]


def goals_table(report: Report) -> Table | None:
    """Return the goals for a terminal, None where none was set."""
    if not report.goals:
        return None
    table = Table()
    for head in GOAL_HEADS:
        table.add_column(head, overflow="fold")
    for row in goal_rows(report):
        table.add_row(*map(Text, row))
    return table


def outcome(met: bool) -> str:
    """Return the word for it."""
    return "met" if met else "MISSED"


def goal_sentence(goal: Goal) -> str:
    """Return one goal in words, without its name."""
    return f"wanted {_wanted(goal)}, got {_got(goal)} {goal.unit}"


def budget_sentence(report: Report) -> str:
    """Return what the budget allows and what the drop may be."""
    drop = report.selection_drop
    return (
        f"at most {report.settings.get('max_drop', 100):g} points of {drop.quantity} may be lost "
        f"on the selection split; {drop.points:.2f} were, and at most {drop.upper_points:.2f} at "
        f"{100 * drop.confidence:g} % confidence"
    )


def outcome_lines(report: Report) -> list[str]:
    """Return the outcome in one sentence, or nothing where nothing was asked but the budget."""
    missed = [f"{g.name.replace('_', '-')} ({goal_sentence(g)})" for g in missed_goals(report)]
    if budget_missed(report):
        missed.append(f"the budget ({budget_sentence(report)})")
    if missed:
        return [f"MISSED: {'; '.join(missed)}."]
    if len(report.goals) > 1:
        return [f"All {len(report.goals)} goals were met."]
    return ["The goal was met."] if report.goals else []


def _wanted(goal: Goal) -> str:
    return f"{'at least' if goal.at_least else 'at most'} {_number(goal.wanted, _decimals(goal))}"


def _got(goal: Goal) -> str:
    return "nothing measured" if goal.got is None else _number(goal.got, _decimals(goal))


def _decimals(goal: Goal) -> int:
    """Return how many decimals show on which side of the wanted number the measured one is."""
    places = range(DECIMALS, MOST_DECIMALS)
    if goal.got is None or goal.met:
        return DECIMALS
    told = (n for n in places if _number(goal.got, n) != _number(goal.wanted, n))
    return next(told, MOST_DECIMALS)


def _number(value: float, decimals: int) -> str:
    text = f"{value:,.{decimals}f}"
    return text.rstrip("0").rstrip(".") if "." in text else text
