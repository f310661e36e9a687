"""The report as one self-contained HTML page; ``report.html.jinja`` is its template."""

from collections.abc import Iterator
from pathlib import Path

from jinja2 import Environment, PackageLoader, StrictUndefined

from slimnet.load import partial_file
from slimnet.records import BranchResult, Candidate, Report, Step
from slimnet.report.classes import CLASS_HEADS, class_rows
from slimnet.report.goals import GOAL_HEADS, goal_rows
from slimnet.report.numbers import MINUS, capitalized, count, points
from slimnet.report.summary import layers_removed, sensitivity_words, summary_lines
from slimnet.report.tables import confirmation_rows, int8_rows, result_rows
from slimnet.search import BRANCH

MAX_LAYERS = 400  # a figure of more rows could not be read


def save_html(report: Report, path: Path) -> None:
    """Write the report as one HTML file that loads nothing else.

    Raises:
        InputError: the file cannot be written.
    """
    with partial_file(path) as temporary:
        temporary.write_text(html_page(report), encoding="utf-8")


def html_page(report: Report) -> str:
    """Return the page; does not change the report."""
    from slimnet.report import plots  # takes a second: only if something is drawn

    templates = Environment(
        loader=PackageLoader("slimnet", "report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    unit, sensitivity = sensitivity_words(report)
    removed = layers_removed(report)
    templates.filters["capitalize_first"] = capitalized
    return templates.get_template("report.html.jinja").render(
        report=report,
        plots=plots,
        lines=summary_lines(report),
        quantity=report.selection_drop.quantity,
        goal_heads=GOAL_HEADS,
        goals=goal_rows(report),
        changes=result_rows(report),
        confirmation=confirmation_rows(report),
        int8=[] if report.int8 is None else list(int8_rows(report.int8)),
        unit=unit,
        sensitivity=sensitivity,
        widths=[
            (name, *widths, removed.get(name, ""))
            for name, widths in report.channels_per_layer.items()
        ],
        branches=[_branch_row(branch) for branch in report.branches],
        max_layers=MAX_LAYERS,
        steps=[_step_row(step, report) for step in report.trajectory.steps],
        class_heads=CLASS_HEADS,
        classes=class_rows(report),
        frozen=[(entry.layer, count(entry.channels), entry.reason) for entry in report.frozen],
        facts=list(_facts(report)),
    )


def _step_row(step: Step, report: Report) -> tuple[str, ...]:
    chosen = [step.candidates[number] for number in step.chosen]
    return (
        str(step.number),
        ", ".join(dict.fromkeys(one.metric for one in chosen)),
        "; ".join(units for one in chosen for units in _units(one)),
        f"{sum(one.sensitivity for one in chosen):+.3g}".replace("-", MINUS),
        f"{step.parameters_removed_percent:.1f} %",
        points(step.drop.points),
        _outcome(step, report),
        ", ".join(step.recovered_by),
    )


def _units(candidate: Candidate) -> Iterator[str]:
    """Yield how many units of each group go."""
    for name, units in candidate.channels.items():
        yield f"{name}: {'all ' * (candidate.metric == BRANCH)}{len(units)}"


def _outcome(step: Step, report: Report) -> str:
    if step.taken_back:
        return "replaced by a larger choice" if step.within_budget else "taken back"
    return "kept" if step.number <= report.trajectory.kept_steps else "beyond the budget"


def _branch_row(branch: BranchResult) -> tuple[str, ...]:
    outcome = f"cannot go: {branch.reason}" if branch.reason else "gone" if branch.gone else "stays"
    return branch.name, ", ".join(branch.layers), ", ".join(branch.constant), outcome


def _facts(report: Report) -> Iterator[tuple[str, object]]:
    yield "model", report.source
    yield "data", report.data.get("description", "")
    yield from report.environment.items()
    error = report.masked_slim.relative_error
    yield "masked = slim (float64)", f"{error:.1e} of the output's scale"
    for batch, parity in report.artefacts.slim_onnx.parity.items():
        yield f"ONNX Runtime = PyTorch, batch {batch}", f"{parity.relative_error:.1e}"
    for size, parity in report.artefacts.slim_onnx.size_parity.items():
        yield f"ONNX Runtime = PyTorch, size {size}", f"{parity.relative_error:.1e}"
    for name, digest in report.artefacts.sha256.items():
        yield f"SHA-256 of {name}", digest
    for name, seconds in report.seconds.items():
        yield f"seconds {name}", f"{seconds:.1f}"
