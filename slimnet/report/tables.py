"""Tables for a terminal, and their rows for the other outputs."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from rich.table import Table
from rich.text import Text

from slimnet.options import ESTIMATE
from slimnet.records import Application, Drop, Int8, Latency, Report, Verification
from slimnet.report.numbers import change, count, file_size, level, milliseconds, points

Row = tuple[str, str, str, str]
"""A quantity, its value in the original and in the slim network, and the change; as text."""


# kinds of columns: long words break, at the right too; numbers stand on one line
TEXT: Mapping[str, Any] = {"overflow": "fold"}
RIGHT: Mapping[str, Any] = {"overflow": "fold", "justify": "right"}
NUMBER: Mapping[str, Any] = {"justify": "right", "no_wrap": True}


def make_table(
    columns: Mapping[str, Mapping[str, Any]],
    sections: Iterable[Iterable[Sequence[str]]],
    **look: Any,
) -> Table:
    """Return a table with a line between its sections of rows; their cells are plain text.

    ``columns`` are the heads with the kind of each; ``look`` are arguments of rich's Table.
    """
    table = Table(title_justify="left", caption_justify="left", **look)
    for head, kind in columns.items():
        table.add_column(head, **kind)
    for section in sections:
        for row in section:
            table.add_row(*map(Text, row))
        table.add_section()
    return table


def result_table(report: Report) -> Table:
    """Return what changed, one row for each quantity; does not change the report."""
    confidence = max(drop.confidence for drop in _drops(report).values())
    brackets = "In brackets: the 95 % interval of a speed-up"
    if confidence > ESTIMATE:
        level = f"{100 * (2 * confidence - 1):g} %"
        brackets += f", and the {level} interval of a drop on images that decided nothing"
    return changes_table(_sections(report), brackets)


def changes_table(sections: Iterable[Sequence[Row]], caption: str | None = None) -> Table:
    """Return a table of these rows, with a line between sections."""
    columns = {"what": TEXT, "original": RIGHT, "slim": RIGHT, "change": RIGHT}
    return make_table(columns, sections, caption=caption)


def result_rows(report: Report) -> list[Row]:
    """Return what changed, one row for each quantity; does not change the report."""
    return [row for section in _sections(report) for row in section]


def _sections(report: Report) -> tuple[list[Row], ...]:
    drops = [_drop_row(name, drop) for name, drop in _drops(report).items()]
    return drops, size_rows(report), latency_rows(report.latency)


def _drops(report: Report) -> dict[str, Drop]:
    drops = {
        "selection": report.selection_drop,
        "confirmation": report.confirmation_drop,
        "test": report.test_drop,
    }
    return {name: drop for name, drop in drops.items() if drop is not None}


def _drop_row(split: str, drop: Drop) -> Row:
    interval = ""
    if drop.confidence > ESTIMATE:
        interval = f" [{points(drop.upper_points)}, {points(drop.lower_points)}]"
    return (
        f"{drop.quantity}, {drop.images:,} {split} images",
        level(drop.original_percent, drop.quantity),
        level(drop.slim_percent, drop.quantity),
        f"{points(drop.points)} points{interval}",
    )


def confirmation_rows(report: Report) -> list[tuple[str, ...]]:
    """Return every test on the confirmation images, in order; does not change the report."""
    tests = () if report.confirmation is None else report.confirmation.tests
    return [
        (
            f"{test.step}, {test.file}",
            f"{test.parameters_removed_percent:.1f} %",
            points(test.selection_points),
            f"{points(test.drop.points)} [{points(test.drop.upper_points)}, "
            f"{points(test.drop.lower_points)}]",
            f"{test.p_value:.3f}",
            "confirmed" if test.confirmed else "not confirmed",
        )
        for test in tests
    ]


def size_rows(report: Report | Application) -> list[Row]:
    """Return how the sizes changed; does not change the report."""
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
    """Return how the time of one batch changed, by runtime and batch size."""
    return [
        (
            f"{_place(entry)}, batch {entry.batch_size}",
            milliseconds(entry.original_median_ms),
            milliseconds(entry.slim_median_ms),
            _speed(entry),
        )
        for entry in entries
    ]


def _place(entry: Latency) -> str:
    return f"{entry.runtime}, {entry.threads} thread{'s' if entry.threads > 1 else ''}"


def _speed(entry: Latency) -> str:
    if not entry.measurable:
        return "no measurable difference"
    low, high = f"{entry.speedup_low:.2f}", f"{entry.speedup_high:.2f}"
    if entry.speedup > 1:
        return f"÷ {entry.speedup:.2f} [{low}, {high}]"
    low, high = f"{1 / entry.speedup_high:.2f}", f"{1 / entry.speedup_low:.2f}"
    return f"× {1 / entry.speedup:.2f} slower [{low}, {high}]"


def relative_speed(entry: Latency, name: str) -> str:
    """Return the speed-up in words, compared with the network called ``name``."""
    times = f"{entry.speedup:.2f} times" if entry.measurable else "not measurably different from"
    return (
        f"{times} the speed of {name} at batch {entry.batch_size} "
        f"(95 % interval {entry.speedup_low:.2f} to {entry.speedup_high:.2f})"
    )


def int8_rows(int8: Int8) -> Iterator[tuple[str, str]]:
    """Yield pairs of text: a quantity of the int8 file, and its value."""
    yield "slim.int8.onnx", "shipped" if int8.shipped else f"not shipped: {int8.reason}"
    if int8.ranges:
        yield "numbers", int8.numbers
        yield "ranges of tensors", int8.ranges
    for method, distance in int8.distances.items():
        yield f"distance of the outputs from slim.onnx's, {method}", f"{100 * distance:.3g} %"
    if int8.bytes is not None:
        yield "size", file_size(int8.bytes)
    drops = {
        "selection": int8.selection_drop,
        "confirmation": int8.confirmation_drop,
        "test": int8.test_drop,
    }
    for split, drop in drops.items():
        if drop is not None:
            name, before, after, change_points = _drop_row(split, drop)
            yield name, f"{before} to {after}: {change_points}"
    for name, timed in (("original", int8.against_original), ("slim.onnx", int8.against_slim)):
        for entry in timed:
            before, after = map(milliseconds, (entry.original_median_ms, entry.slim_median_ms))
            yield (
                f"{_place(entry)}, against {name}",
                f"{before} to {after}: {relative_speed(entry, name)}",
            )


def checks_table(verification: Verification) -> Table:
    """Return every check with its outcome; does not change the verification."""
    rows = [(c.name, "holds" if c.holds else "FAILS", c.seen) for c in verification.checks]
    return make_table({"check": TEXT, "": TEXT, "found": TEXT}, [rows])
