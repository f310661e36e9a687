"""The text and JSON of apply, bench and inspect, and the command line that repeats a run."""

from __future__ import annotations

import json
import shlex
from collections.abc import Sequence
from itertools import groupby
from typing import Any

from rich.table import Table
from rich.text import Text

from slimnet.options import Options, options_of
from slimnet.records import (
    Application,
    Benchmark,
    Frozen,
    GroupOffer,
    Inspection,
    LayerLatency,
    Size,
)
from slimnet.report.json_report import as_plain
from slimnet.report.numbers import change, count, milliseconds
from slimnet.report.tables import changes_table, latency_rows

MAX_NAMES = 3  # of frozen layers on one line: the first two and "..." tell which stream it is


def command_line(source: str, data: str | None, out: str | None, options: Options) -> str:
    """Return the command that repeats the run, with the options that differ from their defaults."""
    words = ["slimnet", "compress", source]
    if data is not None:
        words += ["--data", data]
    for option in options_of(type(options)):
        value = getattr(options, option.name)
        if value == option.default and option.name != "max_drop":
            continue
        flag = "--" + option.name.replace("_", "-")
        if isinstance(value, bool):
            words.append(flag if value else "--no-" + flag.removeprefix("--"))
        elif option.repeats:
            words += [word for part in value for word in (flag, str(part))]
        else:
            words += [flag, _text(value)]
    if out is not None:
        words += ["--out", out]
    return shlex.join(words)


def _text(value: Any) -> str:
    if isinstance(value, tuple):
        return ",".join(_text(part) for part in value)
    return f"{value:g}" if isinstance(value, float) and float(f"{value:g}") == value else str(value)


def application_lines(application: Application) -> list[str]:
    """Return the lines below the table of sizes; does not change the record."""
    shape = ", ".join(map(str, application.input_shape))
    guessed = " (guessed)" if application.input_shape_guessed else ""
    return [
        f"Masked and slim differ by {application.masked_slim.relative_error:.1e} of the output's "
        f"scale, in float64, on noise of the shape ({shape}){guessed}. ONNX Runtime and PyTorch "
        "agree.",
        *application.notes,
    ]


def benchmark_json(benchmark: Benchmark) -> str:
    """Return the benchmark as one JSON document, without a line end; does not change it."""
    return json.dumps(as_plain(benchmark), indent=1, allow_nan=False)


def benchmark_parts(benchmark: Benchmark) -> list[Table | Text]:
    """Return the tables and lines to print, in order; does not change the benchmark."""
    samples = {len(entry.slim_samples_ms) for entry in benchmark.latency}
    parts: list[Table | Text] = [
        Text(f"original: {benchmark.original}\nslim: {benchmark.slim}"),
        changes_table(
            [latency_rows(benchmark.latency)],
            f"Medians of {' or '.join(map(str, sorted(samples)))} timings of each network, taken "
            "in turns; in brackets the 95 % interval of the speed-up",
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


def inspection_json(inspection: Inspection) -> str:
    """Return the inspection as one JSON document, without a line end; does not change it."""
    return json.dumps(as_plain(inspection), indent=1, allow_nan=False)


def inspection_parts(inspection: Inspection) -> list[Table | Text]:
    """Return the tables and lines to print, in order; does not change the inspection."""
    parts: list[Table | Text] = []
    if inspection.groups:
        parts.append(_groups_table(inspection.groups))
    if inspection.frozen:
        parts.append(_frozen_table(inspection.frozen))
    if inspection.groups:
        parts.append(_offer_table(inspection.size, inspection.smallest_size))
    return [*parts, *map(Text, _lines(inspection))]


def _groups_table(groups: Sequence[GroupOffer]) -> Table:
    """Return a table with one row for each layer; long names break."""
    table = Table(caption="parameters, MACs: removed with one unit", caption_justify="left")
    table.add_column("group", justify="right")
    table.add_column("layer", overflow="fold")
    for name in ("channels", "units", "parameters", "MACs"):
        table.add_column(name, justify="right", no_wrap=True)
    for number, group in enumerate(groups, 1):
        savings = (round(group.parameters_per_unit), round(group.macs_per_unit))
        first = (str(number), *(count(value) for value in (group.units, *savings)))
        for layer, channels in group.layers.items():
            table.add_row(first[0], Text(layer), count(channels), *first[1:])
            first = ("", "", "", "")
    return table


def _frozen_table(frozen: Sequence[Frozen]) -> Table:
    """Return a table with one row for each reason: the layers of a stream share theirs."""
    table = Table()
    table.add_column("frozen layers", overflow="fold")
    table.add_column("channels", justify="right", no_wrap=True)
    table.add_column("why", overflow="fold")
    by_reason: dict[str, list[Frozen]] = {}
    for entry in frozen:
        by_reason.setdefault(entry.reason, []).append(entry)
    for reason, entries in by_reason.items():
        channels = sum(entry.channels for entry in entries)
        table.add_row(Text(_shortened([e.layer for e in entries])), count(channels), Text(reason))
    return table


def _shortened(layers: Sequence[str]) -> str:
    """Return the names of the layers, or of the first ones and how many there are."""
    if len(layers) <= MAX_NAMES:
        return ", ".join(layers)
    return f"{', '.join(layers[: MAX_NAMES - 1])}, ... ({len(layers)} layers)"


def _offer_table(now: Size, smallest: Size) -> Table:
    table = Table()
    table.add_column("size")
    for name in ("now", "one unit per group", "change"):
        table.add_column(name, justify="right")
    for name, before, after in (
        ("parameters", now.parameters, smallest.parameters),
        ("conv weights", now.conv_weights, smallest.conv_weights),
        ("MACs per input", now.macs, smallest.macs),
    ):
        table.add_row(name, count(before), count(after), change(before, after))
    return table


def _lines(inspection: Inspection) -> list[str]:
    shape = ",".join(map(str, inspection.input_shape))
    guessed = " (guessed; --input-shape gives another)" if inspection.input_shape_guessed else ""
    groups, frozen = len(inspection.groups), len(inspection.frozen)
    lines = [
        f"Input shape: {shape}{guessed}.",
        f"{inspection.prunable_channels:,} of {inspection.channels:,} channels "
        f"({inspection.prunable_channels_percent:.0f} %) can be removed, in {groups} "
        f"group{'' if groups == 1 else 's'}; {frozen} layer{' is' if frozen == 1 else 's are'} "
        "frozen.",
    ]
    return lines if groups else [lines[0], "Nothing can be removed from this network."]
