"""The plot of a comparison: every metric's correlation with the oracle, overall and by layer."""

from __future__ import annotations

from html import escape
from pathlib import PurePath

from matplotlib.axes import Axes

from slimnet.records import Comparison, MetricAgreement
from slimnet.report.comparison import by_agreement, interval, signed
from slimnet.report.plots import BLUE, INK, ORANGE, figure_as_svg


def comparison_plot(comparison: Comparison) -> str:
    """Draw one row a metric as an SVG file; what it shows stands in its <desc> too.

    Small circles are layers, a diamond with its interval all units, the hatched band what random
    orders reach, and the dashed line how well the oracle agrees with itself.
    """
    metrics = by_agreement(comparison)
    with figure_as_svg(1.5 + 0.34 * len(metrics)) as (figure, axes, svg):
        for place, one in enumerate(metrics):
            _draw_metric(axes, place, one)
        _draw_references(axes, comparison)
        axes.set_yticks(range(len(metrics)), [one.metric for one in metrics])
        axes.set_ylim(len(metrics) - 0.4, -0.6)
        axes.set_xlim(-1.02, 1.02)
        axes.set_xlabel("Spearman correlation with the measured change of the loss")
        axes.legend(loc="lower right", bbox_to_anchor=(1, 1), ncols=4, fontsize=8.5)
        figure.tight_layout()
    return _described(svg(), comparison, metrics)


def _draw_metric(axes: Axes, place: int, one: MetricAgreement) -> None:
    """Draw one row; the first one names what is drawn for the legend."""
    layers = [layer.spearman for layer in one.layers.values() if layer.spearman is not None]
    axes.plot(layers, [place] * len(layers), "o", color=BLUE, alpha=0.7, markersize=4.5,
              markeredgecolor=INK, markeredgewidth=0.4, zorder=3,
              label="one layer" if place == 0 else None)  # fmt: skip
    if one.overall.spearman is None:
        return
    if bounds := one.spearman_interval:
        axes.plot(bounds, [place] * 2, "|-", color=INK, linewidth=1.2)
    axes.plot([one.overall.spearman], [place], "D", color=ORANGE, markeredgecolor=INK,
              markersize=7, label="all units, 95 %" if place == 0 else None)  # fmt: skip


def _draw_references(axes: Axes, comparison: Comparison) -> None:
    """Draw what random orders reach, and how well the oracle agrees with itself."""
    if band := comparison.random.spearman_interval:
        axes.axvspan(*band, facecolor="none", edgecolor=INK, hatch="////", alpha=0.25,
                     linewidth=0, label="random orders, 95 %")  # fmt: skip
    if (best := comparison.oracle_halves.spearman) is not None:
        axes.axvline(best, color=INK, linestyle="--", linewidth=1, label="oracle, half by half")


def _described(svg: str, comparison: Comparison, metrics: list[MetricAgreement]) -> str:
    """Return the drawing as a file with its text alternative, dark on white on every page."""
    title = f"Saliency metrics against the full oracle, {PurePath(comparison.source).name}"
    rows = [
        f"{one.metric} {signed(one.overall.spearman)} {interval(one.spearman_interval)}, "
        f"by layer {signed(one.layers_mean.spearman)}"
        for one in metrics
    ]
    random = f"random orders {interval(comparison.random.spearman_interval)}"
    best = f"oracle, half by half, {signed(comparison.oracle_halves.spearman)}"
    told = f"Spearman correlation with its 95 % interval: {'; '.join([*rows, random, best])}."
    start, rest = svg.split(">", 1)
    return (
        f'{start} role="img" aria-labelledby="title desc" style="color:#1a1a1a;background:#fff">\n'
        f'<title id="title">{escape(title)}</title>\n<desc id="desc">{escape(told)}</desc>{rest}'
    )
