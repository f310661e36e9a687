"""Whether a finished run meets its goals and its budget, and how that is worded."""

from __future__ import annotations

import math
from collections.abc import Iterator

from rich.table import Table
from rich.text import Text

from slimnet.records import Goal, Latency, Report
from slimnet.report.baseline import Baseline
from slimnet.timing import RUNTIMES

ROUNDING = 1e-12  # relative; far above the rounding of a float64, far below any real difference
REGRESSION_PERCENT = 2.0  # the default of max_regression, as its help says; a guess


def evaluate_goals(report: Report, baseline: Baseline | None = None) -> tuple[Goal, ...]:
    """Return every goal that the report's settings name, evaluated; the report is not changed.

    A speed-up counts by the lower end of its 95 % interval: the goal is met only if that is sure.
    """
    goals = list(_own_goals(report))
    if baseline is not None:
        goals += _baseline_goals(report, baseline)
    return tuple(goals)


def missed_goals(report: Report) -> tuple[Goal, ...]:
    """Return the goals that were not met."""
    return tuple(goal for goal in report.goals if not goal.met)


def budget_missed(report: Report) -> bool:
    """Return whether the drop is not surely within the budget.

    A network that lost nothing can break it too, if there are too few images to be sure of a drop.
    That counts as missed only if a goal was set.
    """
    allowed = report.settings.get("max_drop", math.inf)
    if report.selection_drop.upper_points <= allowed:
        return False
    removed = report.slim_size.parameters < report.original_size.parameters
    return removed or bool(report.goals)


def anything_missed(report: Report) -> bool:
    """Return whether the budget or any goal was missed."""
    return bool(missed_goals(report)) or budget_missed(report)


def _goal_latency(report: Report) -> Latency | None:
    """Return the timings that count for goals: those at the first batch size, on the runtime."""
    runtime = RUNTIMES.get(report.settings.get("runtime", ""))
    batch_size = (report.settings.get("latency_batch") or (None,))[0]
    wanted = (runtime.long_name if runtime else None, batch_size)
    return next((e for e in report.latency if (e.runtime, e.batch_size) == wanted), None)


def _own_goals(report: Report) -> Iterator[Goal]:
    wanted, timed = report.settings, _goal_latency(report)
    where = f"on {timed.runtime}, batch {timed.batch_size}" if timed else "at the chosen batch size"
    slim = report.slim_size
    if wanted.get("min_speedup") is not None:
        unit = f"times as fast {where}, lower end of the 95 % interval"
        low = timed.speedup_low if timed else None
        yield _at_least("min_speedup", wanted["min_speedup"], low, unit)
    for name, got, unit in (
        ("max_params", slim.parameters, "parameters"),
        ("max_macs", slim.macs, "MACs for one image"),
        ("max_bytes", report.artefacts.slim_onnx.bytes, "bytes of slim.onnx"),
        ("max_latency_ms", timed.slim_median_ms if timed else None, f"ms {where}, median"),
    ):
        if wanted.get(name) is not None:
            yield _at_most(name, wanted[name], got, unit)


def _baseline_goals(report: Report, baseline: Baseline) -> Iterator[Goal]:
    """Yield the goals of a baseline; the speed-up fell only if both intervals agree on it."""
    percent, timed = report.settings["max_regression"], _goal_latency(report)
    percent = REGRESSION_PERCENT if percent is None else percent
    before, slim = baseline.slim_size, report.slim_size
    unit = f"points of {report.test_drop.quantity} lost on the test split"
    limit = baseline.test_drop.points + percent
    yield _at_most("baseline_drop", limit, report.test_drop.points, unit)
    bytes_before, bytes_now = (one.artefacts.slim_onnx.bytes for one in (baseline, report))
    for name, old, new, unit in (
        ("baseline_params", before.parameters, slim.parameters, "parameters"),
        ("baseline_macs", before.macs, slim.macs, "MACs for one image"),
        ("baseline_bytes", bytes_before, bytes_now, "bytes of slim.onnx"),
    ):
        yield _at_most(name, old * (1 + percent / 100), new, unit)
    yield _at_least(
        "baseline_speedup",
        baseline.latency[0].speedup_low * (1 - percent / 100),
        timed.speedup_high if timed else None,
        "times as fast, upper end of the 95 % interval against the lower end of the baseline's",
    )


def _at_most(name: str, wanted: float, got: float | None, unit: str) -> Goal:
    met = got is not None and (got <= wanted or math.isclose(got, wanted, rel_tol=ROUNDING))
    return Goal(name, wanted, got, unit, met)


def _at_least(name: str, wanted: float, got: float | None, unit: str) -> Goal:
    met = got is not None and (got >= wanted or math.isclose(got, wanted, rel_tol=ROUNDING))
    return Goal(name, wanted, got, unit, met, at_least=True)


DECIMALS, MAX_DECIMALS = 4, 15  # a float64 has 15 to 17 digits
GOAL_HEADS = ("goal", "", "wanted", "got", "unit")


def goal_rows(report: Report) -> list[tuple[str, ...]]:
    """Return every goal as text: its option, whether it was met, wanted, got, the unit."""
    return [
        (_option(goal), "met" if goal.met else "MISSED", _wanted(goal), _got(goal), goal.unit)
        for goal in report.goals
    ]


def goals_table(report: Report) -> Table | None:
    """Return the goals for a terminal, None without goals."""
    if not report.goals:
        return None
    table = Table()
    for head in GOAL_HEADS:
        table.add_column(head, overflow="fold")
    for row in goal_rows(report):
        table.add_row(*map(Text, row))
    return table


def goal_sentence(goal: Goal) -> str:
    """Return one goal in words, without its name."""
    return f"wanted {_wanted(goal)}, got {_got(goal)} {goal.unit}"


def budget_sentence(report: Report) -> str:
    """Return the budget in words, and what was lost."""
    drop = report.selection_drop
    return (
        f"at most {report.settings.get('max_drop', 100):g} points of {drop.quantity} may be lost "
        f"on the selection split; {drop.points:.2f} were lost, at most {drop.upper_points:.2f} at "
        f"{100 * drop.confidence:g} % confidence"
    )


def outcome_lines(report: Report) -> list[str]:
    """Return one sentence on goals and budget; none if there is no goal and the budget was met."""
    missed = [f"{_option(goal)} ({goal_sentence(goal)})" for goal in missed_goals(report)]
    if budget_missed(report):
        missed.append(f"the budget ({budget_sentence(report)})")
    if missed:
        return [f"MISSED: {'; '.join(missed)}."]
    if len(report.goals) > 1:
        return [f"All {len(report.goals)} goals were met."]
    return ["The goal was met."] if report.goals else []


def _option(goal: Goal) -> str:
    return goal.name.replace("_", "-")


def _wanted(goal: Goal) -> str:
    limit = "at least" if goal.at_least else "at most"
    return f"{limit} {_formatted(goal.wanted, _decimals(goal))}"


def _got(goal: Goal) -> str:
    return "nothing measured" if goal.got is None else _formatted(goal.got, _decimals(goal))


def _decimals(goal: Goal) -> int:
    """Return how many decimals a missed goal needs, or its two numbers would look the same."""
    if goal.got is None or goal.met:
        return DECIMALS
    for decimals in range(DECIMALS, MAX_DECIMALS):
        if _formatted(goal.got, decimals) != _formatted(goal.wanted, decimals):
            return decimals
    return MAX_DECIMALS


def _formatted(value: float, decimals: int) -> str:
    text = f"{value:,.{decimals}f}"
    return text.rstrip("0").rstrip(".") if "." in text else text
