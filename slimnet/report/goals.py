"""Whether a finished run is what was asked of it: the one place where goals are judged."""

from __future__ import annotations

import math
from collections.abc import Iterator

from slimnet.records import Goal, Latency, Report
from slimnet.report.baseline import Baseline
from slimnet.settings import RUNTIMES

ROUNDING = 1e-12
REGRESSION_PERCENT = 2.0  # where the user names none


def evaluate_goals(report: Report, baseline: Baseline | None = None) -> tuple[Goal, ...]:
    """Return every goal that the report's settings set, judged; the report is not changed.

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
    """Tell whether the budget cannot be met.

    What was removed is, measured once more, not surely within it. Or nothing was removed, because
    there are too few images to be sure of anything: that is a miss only where a goal was set.
    """
    allowed = report.settings.get("max_drop", math.inf)
    if report.selection_drop.upper_points <= allowed:
        return False
    removed = report.slim_size.parameters < report.original_size.parameters
    return removed or bool(report.goals)


def anything_missed(report: Report) -> bool:
    """Tell whether a goal was missed or the budget cannot be met."""
    return bool(missed_goals(report)) or budget_missed(report)


def judged_latency(report: Report) -> Latency | None:
    """Return the timings that goals are judged by: the first batch size, on the chosen runtime."""
    runtime = RUNTIMES.get(report.settings.get("runtime", ""))
    batch_size = (report.settings.get("latency_batch") or (None,))[0]
    found = (e for e in report.latency if (e.runtime, e.batch_size) == (runtime, batch_size))
    return next(found, None)


def _own_goals(report: Report) -> Iterator[Goal]:
    wanted, timed = report.settings, judged_latency(report)
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
    """Yield what a pipeline cares about; a speed-up fell only if both intervals say so."""
    percent, timed = report.settings["max_regression"], judged_latency(report)
    percent = REGRESSION_PERCENT if percent is None else percent
    factor = 1 + percent / 100
    split = f"points of {report.test_drop.quantity} lost on the test split"
    yield _at_most("baseline_drop", baseline.drop_points + percent, report.test_drop.points, split)
    before, slim = baseline.slim_size, report.slim_size
    for name, old, new, unit in (
        ("baseline_params", before.parameters, slim.parameters, "parameters"),
        ("baseline_macs", before.macs, slim.macs, "MACs for one image"),
        ("baseline_bytes", baseline.slim_bytes, report.artefacts.slim_onnx.bytes,
         "bytes of slim.onnx"),
    ):  # fmt: skip
        yield _at_most(name, old * factor, new, unit)
    yield _at_least(
        "baseline_speedup",
        baseline.speedup_low * (1 - percent / 100),
        timed.speedup_high if timed else None,
        "times as fast, the upper end of this 95 % interval against the lower of the baseline's",
    )


def _at_most(name: str, wanted: float, got: float | None, unit: str) -> Goal:
    met = got is not None and (got <= wanted or math.isclose(got, wanted, rel_tol=ROUNDING))
    return Goal(name, wanted, got, unit, met)


def _at_least(name: str, wanted: float, got: float | None, unit: str) -> Goal:
    met = got is not None and (got >= wanted or math.isclose(got, wanted, rel_tol=ROUNDING))
    return Goal(name, wanted, got, unit, met, at_least=True)
