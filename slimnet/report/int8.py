"""What became of the slim network in int8, in a line and as a table."""

from __future__ import annotations

from collections.abc import Iterator

from slimnet.records import Drop, Int8, Latency
from slimnet.report.numbers import file_size, level, milliseconds, points


def int8_line(int8: Int8) -> str:
    """Return one sentence: what slim.int8.onnx is, or why there is none."""
    drop = int8.test_drop
    if not int8.shipped or drop is None or int8.bytes is None:
        return f"int8 is {'not shipped: ' * (not int8.reason.startswith('skipped'))}{int8.reason}."
    speeds = ", ".join(_speed(entry, "slim.onnx") for entry in int8.against_slim)
    return (
        f"slim.int8.onnx: {drop.quantity} {level(drop.slim_percent, drop.quantity)} on "
        f"{drop.images:,} test images ({points(drop.points)} points from the original), "
        f"{file_size(int8.bytes)}, {speeds}."
    )


def int8_rows(int8: Int8) -> Iterator[tuple[str, str]]:
    """Yield what was tried, measured and decided: what it is, and the finding; as text."""
    yield "slim.int8.onnx", "shipped" if int8.shipped else f"not shipped: {int8.reason}"
    if int8.ranges:
        yield "numbers", int8.numbers
        yield "ranges of tensors", int8.ranges
    for method, distance in int8.distances.items():
        yield f"outputs' distance from slim.onnx, {method}", f"{100 * distance:.3g} %"
    if int8.bytes is not None:
        yield "size", file_size(int8.bytes)
    for split, drop in (("selection", int8.selection_drop), ("test", int8.test_drop)):
        if drop is not None:
            yield f"{drop.quantity}, {split} split, {drop.images:,} images", _change(drop)
    for name, timed in (("original", int8.against_original), ("slim.onnx", int8.against_slim)):
        for entry in timed:
            before, after = entry.original_median_ms, entry.slim_median_ms
            where = f"{entry.runtime}, {entry.threads} thread{'s' * (entry.threads > 1)}"
            yield (
                f"{where}, against {name}",
                f"{milliseconds(before)} to {milliseconds(after)}: {_speed(entry, name)}",
            )


def _change(drop: Drop) -> str:
    return (
        f"{level(drop.original_percent, drop.quantity)} to "
        f"{level(drop.slim_percent, drop.quantity)}: {points(drop.points)} points "
        f"[{points(drop.upper_points)}, {points(drop.lower_points)}]"
    )


def _speed(entry: Latency, name: str) -> str:
    times = f"{entry.speedup:.2f} times" if entry.measurable else "not measurably off"
    return (
        f"{times} the speed of {name} at batch {entry.batch_size} "
        f"(95 % interval {entry.speedup_low:.2f} to {entry.speedup_high:.2f})"
    )
