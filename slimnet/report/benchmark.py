"""Timings of two networks for a reader at a terminal, and as JSON."""

from __future__ import annotations

import json
from itertools import groupby

from rich.table import Table
from rich.text import Text

from slimnet.records import Benchmark, LayerLatency
from slimnet.report.json_report import as_plain
from slimnet.report.numbers import change, milliseconds
from slimnet.report.text import changes_table, latency_rows


def benchmark_json(benchmark: Benchmark) -> str:
    """Return the benchmark as one JSON document, without a line end; does not change it."""
    return json.dumps(as_plain(benchmark), indent=1, allow_nan=False)


def benchmark_parts(benchmark: Benchmark) -> list[Table | Text]:
    """Return what to print, in this order; does not change the benchmark."""
    samples = {len(entry.slim_samples_ms) for entry in benchmark.latency}
    parts: list[Table | Text] = [
        Text(f"original: {benchmark.original}\nslim: {benchmark.slim}"),
        changes_table(
            [latency_rows(benchmark.latency)],
            f"Medians of {' or '.join(map(str, sorted(samples)))} timings of each, taken in turns; "
            "in brackets the 95 % interval of the speed-up",
        ),
    ]
    for (runtime, size), layers in groupby(
        benchmark.layers, key=lambda entry: (entry.runtime, entry.batch_size)
    ):
        parts.append(_layers_table(f"Layers in {runtime}, batch {size}", list(layers)))
    parts += [Text(f"Left out: {entry.what}: {entry.reason}.") for entry in benchmark.skipped]
    parts += [Text(f"Warning: {warning}", style="bold") for warning in benchmark.warnings]
    return parts


def _layers_table(title: str, layers: list[LayerLatency]) -> Table:
    table = Table(title=title, title_justify="left")
    for name in ("layer", "operator"):
        table.add_column(name, overflow="fold")
    for name in ("original", "slim", "change"):
        table.add_column(name, justify="right")
    for entry in layers:
        table.add_row(Text(entry.layer), entry.operator, *_times(entry.original_ms, entry.slim_ms))
    table.add_section()
    sums = (sum(times) for times in zip(*((e.original_ms or 0, e.slim_ms or 0) for e in layers),
                                        strict=True))  # fmt: skip
    table.add_row("all", "", *_times(*sums))
    return table


def _times(original_ms: float | None, slim_ms: float | None) -> tuple[str, str, str]:
    shown = ("–" if time is None else milliseconds(time) for time in (original_ms, slim_ms))
    both = original_ms is not None and slim_ms is not None
    return (*shown, change(original_ms, slim_ms) if both else "")  # type: ignore[arg-type, return-value]
