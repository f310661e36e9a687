"""A comparison of metrics: tables for a terminal, and the files compare.json and compare.svg."""

from __future__ import annotations

import json
from pathlib import Path

from rich import box
from rich.table import Table
from rich.text import Text

from slimnet.errors import InputError
from slimnet.export import require_writable_parent, writing
from slimnet.load import partial_file
from slimnet.records import Comparison, MetricAgreement
from slimnet.report.json_report import as_plain
from slimnet.report.numbers import signed

JSON_FILE, PLOT_FILE = "compare.json", "compare.svg"
NONE = "–"


def by_agreement(comparison: Comparison) -> list[MetricAgreement]:
    """Return the metrics, best agreement with the oracle first."""

    def key(one: MetricAgreement) -> float:
        return -2 if one.overall.spearman is None else one.overall.spearman

    return sorted(comparison.metrics, key=key, reverse=True)


def comparison_tables(comparison: Comparison) -> list[Table]:
    """Return a table of metrics and a table of groups; does not change the comparison."""
    return [_metrics_table(comparison), _groups_table(comparison)]


def _metrics_table(comparison: Comparison) -> Table:
    table = _table("metric")
    for name in ("Spearman", "tau-b", "layers", "shared", "s"):
        table.add_column(name, justify="right", no_wrap=True)
    for one in by_agreement(comparison):
        table.add_row(
            one.metric,
            signed(one.overall.spearman),
            signed(one.overall.kendall),
            signed(one.layers_mean.spearman),
            f"{one.lowest_shared_percent:.0f} %",
            f"{one.seconds:.1f}",
        )
    halves = comparison.oracle_halves
    table.add_section()
    table.add_row("oracle, half by half", signed(halves.spearman), signed(halves.kendall),
                  NONE, NONE, NONE)  # fmt: skip
    return table


def _groups_table(comparison: Comparison) -> Table:
    """Return one row for each group, with the metric that orders it best."""
    table = _table("layers")
    table.add_column("units", justify="right", no_wrap=True)
    table.add_column("best metric", overflow="fold")
    table.add_column("Spearman", justify="right", no_wrap=True)
    for name, group in comparison.groups.items():
        known = [
            (value, one.metric)
            for one in comparison.metrics
            if name in one.layers and (value := one.layers[name].spearman) is not None
        ]
        value, metric = max(known, default=(None, NONE))
        measured, units = len(group.sensitivities_nats), f"{group.units:,}"
        units = units if measured == group.units else f"{measured:,} of {units}"
        table.add_row(Text(", ".join(group.layers)), units, metric, signed(value))
    return table


def _table(first: str) -> Table:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, collapse_padding=True)
    table.add_column(first, overflow="fold")
    return table


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


def comparison_json(comparison: Comparison) -> str:
    """Return the comparison as one JSON document, without a line end; does not change it."""
    return json.dumps(as_plain(comparison), indent=1, allow_nan=False)


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
    for name, text in ((JSON_FILE, comparison_json(comparison) + "\n"), (PLOT_FILE, plot)):
        with partial_file(folder / name) as temporary:
            temporary.write_text(text, encoding="utf-8")
