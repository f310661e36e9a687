"""A comparison of metrics for a reader at a terminal."""

from __future__ import annotations

from rich import box
from rich.table import Table
from rich.text import Text

from slimnet.records import Comparison, MetricAgreement
from slimnet.report.numbers import MINUS


def by_agreement(comparison: Comparison) -> list[MetricAgreement]:
    """Return the metrics, the one that agrees best with the oracle first."""

    def key(one: MetricAgreement) -> float:
        return -2 if one.overall.spearman is None else one.overall.spearman

    return sorted(comparison.metrics, key=key, reverse=True)


def comparison_tables(comparison: Comparison) -> list[Table]:
    """Return what to print: one row a metric, then one row a group; does not change it."""
    return [_metrics_table(comparison), _groups_table(comparison)]


def _metrics_table(comparison: Comparison) -> Table:
    table = _table("metric")
    for name in ("Spearman", "95 % interval", "tau-b", "layers", "shared", "s"):
        table.add_column(name, justify="right", no_wrap=True)
    for one in by_agreement(comparison):
        table.add_row(
            one.metric,
            signed(one.overall.spearman),
            interval(one.spearman_interval),
            signed(one.overall.kendall),
            signed(one.layers_mean.spearman),
            f"{one.lowest_shared_percent:.0f} %",
            f"{one.seconds:.1f}",
        )
    random, halves = comparison.random, comparison.oracle_halves
    table.add_section()
    chance, none = f"{random.lowest_shared_percent:.0f} %", "–"
    table.add_row("random order", signed(random.spearman), interval(random.spearman_interval),
                  "0.00", "0.00", chance, none)  # fmt: skip
    table.add_row("oracle, half by half", signed(halves.spearman), none,
                  signed(halves.kendall), none, none, none)  # fmt: skip
    return table


def _groups_table(comparison: Comparison) -> Table:
    """One row a group, with the metric that orders it best."""
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
        value, metric = max(known, default=(None, "–"))
        many, of = len(group.sensitivities_nats), group.units
        units = f"{of:,}" if many == of else f"{many:,} of {of:,}"
        table.add_row(Text(", ".join(group.layers)), units, metric, signed(value))
    return table


def _table(first: str) -> Table:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, collapse_padding=True)
    table.add_column(first, overflow="fold")
    return table


def comparison_lines(comparison: Comparison) -> list[str]:
    """Return how the numbers were made and what they are worth, one line each."""
    found = comparison
    repaired = "repaired" if found.repaired else "not repaired"
    lines = [
        f"Oracle: {found.units_measured:,} of {found.units:,} units removed one at a time and "
        f"{repaired}, on {found.images:,} calibration images, {found.oracle_seconds:.0f} s.",
        "tau-b: Kendall's. Layers: the mean of Spearman within each group. Shared: the part of the "
        f"oracle's {found.lowest:,} lowest units that is among the metric's {found.lowest:,} "
        "lowest. s: seconds that the metric takes alone.",
        "Interval of a metric: bootstrap over units, within layers, on these images. Of the random "
        f"order: the middle 95 % of {found.random.orders:,} orders.",
        "Half by half: how well the oracle on one half of the images agrees with itself on the "
        "other half: the noise of the images. Metrics are judged by the oracle on all of them.",
    ]
    return lines + [f"Left out: {name}: {why}." for name, why in found.left_out.items()]


def signed(value: float | None) -> str:
    """Return a correlation with two decimals, "–" for none."""
    if value is None:
        return "–"
    text = f"{abs(value):.2f}"
    return f"{MINUS}{text}" if value < 0 and float(text) else text


def interval(bounds: tuple[float, float] | None) -> str:
    """Return an interval of correlations, "–" for none."""
    return "–" if bounds is None else f"[{signed(bounds[0])}, {signed(bounds[1])}]"
