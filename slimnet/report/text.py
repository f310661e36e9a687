"""The report for a reader at a terminal: one table."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from rich.table import Table
from rich.text import Text

from slimnet.records import Application, Drop, Latency, Report, Verification
from slimnet.report.numbers import change, count, file_size, level, milliseconds, points

Row = tuple[str, str, str, str]


def result_table(report: Report) -> Table:
    """Return what changed, one row a quantity; does not change the report."""
    confidences = {report.selection_drop.confidence, report.test_drop.confidence}
    own = report.test_drop.quantity
    quantity = "an accuracy" if own == "accuracy" else f"the {own}"
    accuracy = " and ".join(f"{100 * confidence:g} %" for confidence in sorted(confidences))
    return changes_table(
        _sections(report),
        f"In brackets: bounds of {quantity}, each at {accuracy}; the 95 % interval of a speed-up",
    )


def changes_table(sections: Iterable[Sequence[Row]], caption: str | None = None) -> Table:
    """Return a table of rows: what it is, original, slim, and the change."""
    table = Table(caption=caption, caption_justify="left")
    table.add_column("what", overflow="fold")
    for name in ("original", "slim", "change"):
        table.add_column(name, justify="right", overflow="fold")
    for section in sections:
        for row in section:
            table.add_row(*map(Text, row))
        table.add_section()
    return table


def result_rows(report: Report) -> list[Row]:
    """Return what changed: what it is, original, slim, and the change; as text."""
    return [row for section in _sections(report) for row in section]


def _sections(report: Report) -> tuple[list[Row], ...]:
    return _accuracy_rows(report), size_rows(report), latency_rows(report.latency)


def _accuracy_rows(report: Report) -> list[Row]:
    return [
        _accuracy_row("selection", report.selection_drop),
        _accuracy_row("test", report.test_drop),
    ]


def _accuracy_row(split: str, drop: Drop) -> Row:
    bounds = f"[{points(drop.upper_points)}, {points(drop.lower_points)}]"
    return (
        f"{drop.quantity}, {split} split, {drop.images:,} images",
        level(drop.original_percent, drop.quantity),
        level(drop.slim_percent, drop.quantity),
        f"{points(drop.points)} points {bounds}",
    )


def size_rows(report: Report | Application) -> list[Row]:
    """Return how the size changed; does not change the report."""
    before, after = report.original_size, report.slim_size
    counts = (
        ("parameters", before.parameters, after.parameters),
        ("conv weights", before.conv_weights, after.conv_weights),
        ("MACs per image", before.macs, after.macs),
    )
    rows = [(name, count(old), count(new), change(old, new)) for name, old, new in counts]
    old, new = report.artefacts.original_onnx.bytes, report.artefacts.slim_onnx.bytes
    return [*rows, ("ONNX file", file_size(old), file_size(new), change(old, new))]


def latency_rows(entries: Iterable[Latency]) -> list[Row]:
    """Return how the time of one run changed, by runtime and batch size."""
    return [
        (
            f"{entry.runtime}, {entry.threads} thread{'s' if entry.threads > 1 else ''}, "
            f"batch {entry.batch_size}",
            milliseconds(entry.original_median_ms),
            milliseconds(entry.slim_median_ms),
            _speed(entry),
        )
        for entry in entries
    ]


def _speed(entry: Latency) -> str:
    if not entry.measurable:
        return "no measurable difference"
    low, high = f"{entry.speedup_low:.2f}", f"{entry.speedup_high:.2f}"
    if entry.speedup > 1:
        return f"÷ {entry.speedup:.2f} [{low}, {high}]"
    low, high = f"{1 / entry.speedup_high:.2f}", f"{1 / entry.speedup_low:.2f}"
    return f"× {1 / entry.speedup:.2f} slower [{low}, {high}]"


def checks_table(verification: Verification) -> Table:
    """Return every check with what was seen; does not change the verification."""
    table = Table()
    for name in ("check", "", "seen"):
        table.add_column(name, overflow="fold")
    for check in verification.checks:
        table.add_row(check.name, "holds" if check.holds else "FAILS", Text(check.seen))
    return table
