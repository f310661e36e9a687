"""Goals, budget, and an earlier report that a run must not fall behind: met or not, in words."""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from rich.table import Table

from slimnet.errors import InputError
from slimnet.execution import measure_size
from slimnet.load import record_from_json
from slimnet.options import GoalOptions
from slimnet.records import Artefacts, Drop, Goal, Inputs, Latency, LoadedModel, Report, Size
from slimnet.report.tables import TEXT, make_table
from slimnet.timing import RUNTIMES

ROUNDING = 1e-12  # relative; far above the rounding of a float64, far below any real difference
REGRESSION_PERCENT = 2.0  # the default of max_regression, as its help says; a guess


@dataclass(frozen=True)
class Baseline:
    """The fields of an earlier report that a new one is compared with, and its ``path``.

    ``latency`` holds only the timings on the runtime and at the batch size of the new run's goals.
    """

    schema_version: Literal[2]
    source_sha256: str | None
    environment: Mapping[str, Any]
    original_size: Size
    slim_size: Size
    selection_drop: Drop
    artefacts: Artefacts
    latency: tuple[Latency, ...]
    confirmation_drop: Drop | None = None
    path: str = ""

    @property
    def drop(self) -> Drop:
        """The drop that the report states; see ``Report``."""
        return self.confirmation_drop or self.selection_drop


def read_baseline(options: GoalOptions, quantity: str) -> Baseline | None:
    """Return the report that the option ``baseline`` names, None without that option.

    Raises:
        InputError: it is no report of this schema version, its score is not ``quantity``, or it has
            no timing on the runtime, at the batch size and with the threads of these options.
    """
    if options.baseline is None:
        return None
    baseline = _read(options.baseline, options)
    if baseline.drop.quantity != quantity:
        raise InputError(
            f"the baseline must measure the same score; {baseline.path} measures the "
            f"{baseline.drop.quantity}, this run the {quantity}: take a report of the same "
            "task"
        )
    return baseline


def require_same_network(baseline: Baseline | None, loaded: LoadedModel, example: Inputs) -> None:
    """Refuse a baseline whose original network has other sizes; the model is not changed.

    Other weights are welcome: the network may have been trained anew.

    Raises:
        InputError: the sizes differ.
    """
    if baseline is None:
        return
    size, before = measure_size(loaded.model, example), baseline.original_size
    if size != before:
        raise InputError(
            f"the baseline must be of the same network; that of {baseline.path} had "
            f"{before.parameters:,} parameters and {before.macs:,} MACs before slimming, and this "
            f"one has {size.parameters:,} and {size.macs:,}: take a report of this network"
        )


def baseline_notes(report: Report, baseline: Baseline | None) -> tuple[str, ...]:
    """Return the reasons why the comparison is not exact, one sentence each."""
    if baseline is None:
        return ()
    notes = []
    if report.source_sha256 != baseline.source_sha256:
        notes.append("the baseline's network has the same sizes but was another file: new weights?")
    if report.drop.images != baseline.drop.images:
        notes.append(
            f"the baseline's drop was measured on {baseline.drop.images:,} images, this run's on "
            f"{report.drop.images:,}: the drops may differ for that alone"
        )
    if report.environment.get("cpu") != baseline.environment.get("cpu"):
        notes.append(
            f"the baseline was timed on another processor ({baseline.environment.get('cpu')}): "
            "the speed-ups may differ for that alone"
        )
    return tuple(notes)


def _read(path: str, options: GoalOptions) -> Baseline:
    try:
        text = Path(path).read_text(encoding="utf-8")
        baseline = record_from_json(Baseline, text)
        return replace(baseline, path=path, latency=(_timing(baseline.latency, options),))
    except OSError as error:
        why = error.strerror or str(error)
    except ValueError as error:
        why = str(error)
    raise InputError(
        f"a baseline is the report.json of an earlier run; {path} cannot be read as one ({why}): "
        "name that file"
    )


def _timing(latency: tuple[Latency, ...], options: GoalOptions) -> Latency:
    runtime, batch_size = RUNTIMES[options.runtime], options.latency_batch[0]
    for entry in latency:
        if (entry.runtime, entry.batch_size) == (runtime.long_name, batch_size):
            if runtime.device == "cpu" and entry.threads != options.threads:
                raise ValueError(f"its threads were {entry.threads}, not {options.threads}")
            return entry
    raise ValueError(f"it holds no speed-up on {runtime.long_name} at batch {batch_size}")


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
    """Return whether no slimmer network could be confirmed to be within the budget."""
    return report.verdict == "missed"


def anything_removed(report: Report) -> bool:
    """Return whether the slim network has fewer parameters."""
    return report.slim_size.parameters < report.original_size.parameters


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
    which = "confirmation" if report.confirmation_drop else "selection"
    unit = f"points of {report.drop.quantity} lost on the {which} images"
    limit = baseline.drop.points + percent
    yield _at_most("baseline_drop", limit, report.drop.points, unit)
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
    return make_table(dict.fromkeys(GOAL_HEADS, TEXT), [goal_rows(report)])


def goal_sentence(goal: Goal) -> str:
    """Return one goal in words, without its name."""
    return f"wanted {_wanted(goal)}, got {_got(goal)} {goal.unit}"


def budget_sentence(report: Report) -> str:
    """Return what can be said of the budget, in words.

    "Confirmed": images that decided nothing show it. "Estimated": nothing was tested. "Missed": no
    slimmer network could be confirmed.
    """
    drop, confirmation = report.drop, report.confirmation
    allowed = f"at most {report.settings.get('max_drop', 100):g} points of {drop.quantity}"
    if report.verdict == "unchanged":
        return f"unchanged: nothing went, where {allowed} may be lost"
    if confirmation is None:
        return (
            f"estimated: {drop.points:.2f} points of {drop.quantity} were lost on "
            f"{drop.images:,} images that also guided the search; {allowed} may be lost"
        )
    level = f"{100 * report.settings.get('confidence', 0.95):g} % confidence"
    if report.verdict == "confirmed":
        return (
            f"confirmed: {allowed} were lost, at {level}, on {confirmation.images:,} images that "
            "decided nothing"
        )
    why = confirmation.impossible or "not even the safest state was confirmed"
    return f"missed: {allowed} may be lost, at {level}; {why}, and the result is the original"


def outcome_lines(report: Report) -> list[str]:
    """Return one sentence on goals and budget; none if there is no goal and the budget was met."""
    missed = [f"{_option(goal)} ({goal_sentence(goal)})" for goal in missed_goals(report)]
    if budget_missed(report):
        missed.append(f"the budget ({budget_sentence(report).removeprefix('missed: ')})")
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
