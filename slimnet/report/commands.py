"""The text and JSON of apply, bench, inspect and compare, and the command line of a run."""

import shlex
from collections.abc import Iterator, Mapping, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

from rich import box
from rich.table import Table
from rich.text import Text

from slimnet.errors import InputError
from slimnet.export import require_writable_parent, writing
from slimnet.load import partial_file
from slimnet.options import Options, options_of
from slimnet.records import (
    Application,
    Benchmark,
    BranchOffer,
    Comparison,
    Frozen,
    GroupOffer,
    Inspection,
    LayerLatency,
    MetricAgreement,
    Size,
)
from slimnet.report.json_report import record_json
from slimnet.report.numbers import change, count, milliseconds, shape_text, signed
from slimnet.report.tables import NUMBER, RIGHT, TEXT, changes_table, latency_rows, make_table

LITTLE_PERCENT = 1  # a guess: too little to be worth a run, however it is measured
MAX_NAMES = 3  # of frozen layers on one line: the first two and "..." tell which stream it is
JSON_FILE, PLOT_FILE = "compare.json", "compare.svg"
NONE = "–"
BRANCH_CAPTION = (
    "A branch is a set of layers that can only go together, with all their channels, such as the "
    "inside of a residual block. A layer reduced to its bias has nothing left to read. MACs: the "
    "share that goes. Where some branches have gone, another may have to stay."
)
CLOSED_CAPTION = "Each is named by one of its layers, which may still lose some of its channels."
PLAIN: Mapping[str, Any] = {"box": box.SIMPLE_HEAD, "pad_edge": False, "collapse_padding": True}


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
    shape = shape_text(application.input_shape).replace(",", ", ")
    guessed = " (guessed)" if application.input_shape_guessed else ""
    return [
        f"Masked and slim differ by {application.masked_slim.relative_error:.1e} of the output's "
        f"scale, in float64, on noise of the shape ({shape}){guessed}. ONNX Runtime and PyTorch "
        "agree.",
        *application.notes,
    ]


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
    columns = {"layer": TEXT, "operator": TEXT, "original": RIGHT, "slim": RIGHT, "change": RIGHT}
    rows = [(e.layer, e.operator, *_times(e.original_ms, e.slim_ms)) for e in layers]
    sums = (sum(times) for times in zip(*((e.original_ms or 0, e.slim_ms or 0) for e in layers),
                                        strict=True))  # fmt: skip
    return make_table(columns, [rows, [("all", "", *_times(*sums))]], title=title)


def _times(original_ms: float | None, slim_ms: float | None) -> tuple[str, str, str]:
    shown = (NONE if time is None else milliseconds(time) for time in (original_ms, slim_ms))
    both = original_ms is not None and slim_ms is not None
    return (*shown, change(original_ms, slim_ms) if both else "")  # type: ignore[arg-type, return-value]


def inspection_parts(inspection: Inspection) -> list[Table | Text]:
    """Return the tables and lines to print, in order; does not change the inspection."""
    parts: list[Table | Text] = [*_warnings(inspection)]
    if inspection.groups:
        parts.append(_groups_table(inspection.groups))
    if inspection.frozen:
        parts.append(_frozen_table(inspection.frozen))
    parts += _branch_tables(inspection.branches)
    if inspection.groups:
        parts.append(_offer_table(inspection.size, inspection.smallest_size))
    return [*parts, *map(Text, _lines(inspection))]


def _warnings(inspection: Inspection) -> Iterator[Text]:
    """Yield what must be said first of a network of which nothing, or next to nothing, can go."""
    parameters, macs = inspection.removable_parameters_percent, inspection.removable_macs_percent
    if not inspection.groups:
        yield Text(
            f"NOTHING CAN BE REMOVED from this network: 0 of its {inspection.channels:,} channels "
            "can go. Why, layer by layer:",
            style="bold",
        )
    elif max(parameters, macs) < LITTLE_PERCENT:
        yield Text(
            f"NEXT TO NOTHING CAN BE REMOVED from this network: at most {parameters:.2g} % of its "
            f"parameters and {macs:.2g} % of its MACs. The frozen layers have the reasons.",
            style="bold",
        )


def _groups_table(groups: Sequence[GroupOffer]) -> Table:
    """Return a table with one row for each layer; long names break."""
    numbers = dict.fromkeys(("channels", "units", "parameters", "MACs"), NUMBER)
    rows = []
    for number, group in enumerate(groups, 1):
        savings = (round(group.parameters_per_unit), round(group.macs_per_unit))
        first = (str(number), *(count(value) for value in (group.units, *savings)))
        for layer, channels in group.layers.items():
            rows.append((first[0], layer, count(channels), *first[1:]))
            first = ("", "", "", "")
    return make_table(
        {"group": {"justify": "right"}, "layer": TEXT} | numbers,
        [rows],
        caption="parameters, MACs: removed with one unit",
    )


def _frozen_table(frozen: Sequence[Frozen]) -> Table:
    """Return a table with one row for each reason: the layers of a stream share theirs."""
    by_reason: dict[str, list[Frozen]] = {}
    for entry in frozen:
        by_reason.setdefault(entry.reason, []).append(entry)
    rows = [
        (_shortened([e.layer for e in entries]), count(sum(e.channels for e in entries)), reason)
        for reason, entries in by_reason.items()
    ]
    return make_table({"frozen layers": TEXT, "channels": NUMBER, "why": TEXT}, [rows])


def _branch_tables(branches: Sequence[BranchOffer]) -> list[Table]:
    """Return a table of the branches that can go, one row each, and one of the others."""
    open_rows = [
        (_shortened(branch.layers), _shortened(branch.constant), f"{branch.macs_percent:.1f} %")
        for branch in branches
        if not branch.reason
    ]
    by_reason: dict[str, list[str]] = {}
    for branch in branches:
        by_reason.setdefault(branch.reason, []).append(branch.name)
    closed_rows = [
        (_shortened(names, "branches"), reason) for reason, names in by_reason.items() if reason
    ]
    open_heads = {"branches that can go": TEXT, "reduced to a bias": TEXT, "MACs": NUMBER}
    return [
        make_table(columns, [rows], caption=caption)
        for columns, rows, caption in (
            (open_heads, open_rows, BRANCH_CAPTION),
            ({"branches that cannot go": TEXT, "why": TEXT}, closed_rows, CLOSED_CAPTION),
        )
        if rows
    ]


def _shortened(names: Sequence[str], things: str = "layers") -> str:
    """Return the names, or the first ones and how many things there are."""
    if len(names) <= MAX_NAMES:
        return ", ".join(names)
    return f"{', '.join(names[: MAX_NAMES - 1])}, ... ({len(names)} {things})"


def _offer_table(now: Size, smallest: Size) -> Table:
    sizes = (
        ("parameters", now.parameters, smallest.parameters),
        ("conv weights", now.conv_weights, smallest.conv_weights),
        ("MACs per input", now.macs, smallest.macs),
    )
    rows = [(name, count(old), count(new), change(old, new)) for name, old, new in sizes]
    columns = {"size": TEXT, "now": RIGHT, "one unit per group": RIGHT, "change": RIGHT}
    return make_table(columns, [rows])


def _lines(inspection: Inspection) -> list[str]:
    shape = shape_text(inspection.input_shape)
    guessed = " (guessed; --input-shape gives another)" if inspection.input_shape_guessed else ""
    groups, frozen = len(inspection.groups), len(inspection.frozen)
    lines = [
        f"Input shape: {shape}{guessed}.",
        f"{inspection.prunable_channels:,} of {inspection.channels:,} channels "
        f"({inspection.prunable_channels_percent:.0f} %) can be removed, in {groups} "
        f"group{'' if groups == 1 else 's'}; {frozen} layer{' is' if frozen == 1 else 's are'} "
        "frozen.",
    ]
    notes = [f"Note: {note}." for note in inspection.notes]
    return [*(lines if groups else lines[:1]), *notes]


def by_agreement(comparison: Comparison) -> list[MetricAgreement]:
    """Return the metrics, best agreement with the oracle first."""

    def key(one: MetricAgreement) -> float:
        return -2 if one.overall.spearman is None else one.overall.spearman

    return sorted(comparison.metrics, key=key, reverse=True)


def comparison_tables(comparison: Comparison) -> list[Table]:
    """Return a table of metrics and a table of groups; does not change the comparison."""
    return [_metrics_table(comparison), _best_metrics_table(comparison)]


def _metrics_table(comparison: Comparison) -> Table:
    rows = [
        (
            one.metric,
            signed(one.overall.spearman),
            signed(one.overall.kendall),
            signed(one.layers_mean.spearman),
            f"{one.lowest_shared_percent:.0f} %",
            f"{one.seconds:.1f}",
        )
        for one in by_agreement(comparison)
    ]
    halves = comparison.oracle_halves
    oracle = ("oracle, half by half", signed(halves.spearman), signed(halves.kendall))
    numbers = dict.fromkeys(("Spearman", "tau-b", "layers", "shared", "s"), NUMBER)
    return make_table({"metric": TEXT} | numbers, [rows, [(*oracle, NONE, NONE, NONE)]], **PLAIN)


def _best_metrics_table(comparison: Comparison) -> Table:
    """Return one row for each group, with the metric that orders it best."""
    rows = []
    for name, group in comparison.groups.items():
        known = [
            (value, one.metric)
            for one in comparison.metrics
            if name in one.layers and (value := one.layers[name].spearman) is not None
        ]
        value, metric = max(known, default=(None, NONE))
        measured, units = len(group.sensitivities_nats), f"{group.units:,}"
        units = units if measured == group.units else f"{measured:,} of {units}"
        rows.append((", ".join(group.layers), units, metric, signed(value)))
    columns = {"layers": TEXT, "units": NUMBER, "best metric": TEXT, "Spearman": NUMBER}
    return make_table(columns, [rows], **PLAIN)


def comparison_lines(comparison: Comparison) -> list[str]:
    """Return the lines that explain the numbers; does not change the comparison."""
    found = comparison
    repaired = "repaired" if found.repaired else "not repaired"
    lines = [
        f"Oracle: {found.units_measured:,} of {found.units:,} units removed one at a time and "
        f"{repaired}, on {found.images:,} calibration images, {found.oracle_seconds:.0f} s.",
        "tau-b: Kendall's. Layers: the mean of Spearman within each group. Shared: the part of the "
        f"oracle's {found.lowest:,} lowest units that is among the metric's {found.lowest:,} "
        "lowest. s: seconds that the metric takes alone.",
        "Half by half: the agreement of the oracle on one half of the images with the oracle on "
        "the other half, which shows the noise of the images. The metrics are compared with the "
        "oracle on all images.",
    ]
    return lines + [f"Left out: {name}: {why}." for name, why in found.left_out.items()]


def check_comparison_folder(folder: Path) -> None:
    """Refuse a folder that cannot take the files; writes nothing. Call before long work.

    Raises:
        InputError: it is a file, holds anything but an earlier comparison, or cannot be written.
    """
    if folder.exists() and not folder.is_dir():
        raise InputError(f"the output must be a folder; {folder} is a file: choose another name")
    others = {entry.name for entry in folder.iterdir()} if folder.exists() else set()
    if others - {JSON_FILE, PLOT_FILE}:
        raise InputError(
            f"the output folder must be new, empty or an earlier comparison; {folder} holds "
            "something else: choose another name"
        )
    require_writable_parent(folder / JSON_FILE if folder.exists() else folder)


def save_comparison(comparison: Comparison, folder: Path) -> None:
    """Write compare.json and compare.svg.

    Raises:
        InputError: they cannot be written.
    """
    from slimnet.report.plots import comparison_plot  # takes a second: only if something is drawn

    plot = comparison_plot(comparison, by_agreement(comparison))
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
    for name, text in ((JSON_FILE, record_json(comparison) + "\n"), (PLOT_FILE, plot)):
        with partial_file(folder / name) as temporary:
            temporary.write_text(text, encoding="utf-8")
