"""The figures of the report and of a comparison, as SVG.

They take the colour of the text around them. Every series has its own marker, hatch or line style,
because colour alone must not carry a meaning.
"""

import io
import math
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from html import escape
from pathlib import PurePath
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from slimnet.records import Comparison, MetricAgreement, Report, Step
from slimnet.report.numbers import is_share, signed
from slimnet.report.summary import NO_UNIT, layers_removed, sensitivity_words

INK = "#010203"  # stands for the page's own text colour, and is replaced by it
BLUE, ORANGE = "#3c8dd0", "#e08214"
WIDTH_INCHES = 7.2
MAX_NAME = 38  # characters of a layer's name; half the width of the figure
LINEAR_NATS = 1e-3  # a guess: about the noise of a measured change of the loss
LINEAR_SHARE = 1e-5  # of distances, which have less noise; a guess
LARGEST_CIRCLE = 280  # square points: a little less than a row is high
STYLE: Any = {
    "svg.fonttype": "none",
    "svg.hashsalt": "slimnet",
    "font.family": "sans-serif",
    "font.size": 10,
    "text.parse_math": False,
    "text.color": INK,
    "axes.edgecolor": INK,
    "axes.labelcolor": INK,
    "xtick.color": INK,
    "ytick.color": INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "legend.frameon": False,
}


@contextmanager
def _figure_as_svg(height_inches: float) -> Iterator[tuple[Axes, Callable[[], str]]]:
    """Give axes to draw on, and a function that returns them as SVG after the block."""
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(WIDTH_INCHES, height_inches))
        drawn: list[str] = []
        yield figure.add_subplot(), lambda: drawn[0]
        figure.tight_layout()
        drawn.append(_svg(figure))


def _svg(figure: Figure) -> str:
    buffer = io.StringIO()
    figure.savefig(
        buffer,
        format="svg",
        transparent=True,
        metadata={"Date": None, "Creator": None, "Type": None, "Format": None},
    )
    text = buffer.getvalue()
    return text[text.index("<svg") :].replace(INK, "currentColor")


def trajectory_plot(report: Report) -> str:
    """Draw accuracy against parameters removed, step by step, the tests, and the budget."""
    trajectory, original = report.trajectory, report.selection_drop.original_percent
    steps = [step for step in trajectory.steps if not step.taken_back]
    back = [step for step in trajectory.steps if step.taken_back]
    chosen = [step for step in steps if step.number == trajectory.kept_steps]
    quantity = report.selection_drop.quantity
    with _figure_as_svg(3.6) as (axes, svg):
        series: tuple[tuple[list[Step], str, str, dict[str, Any]], ...] = (
            (steps, "after each step", "o-", {"color": BLUE, "markersize": 4}),
            (back, "taken back", "x", {"color": INK, "markersize": 5}),
            (chosen, "chosen", "D", {"color": ORANGE, "markersize": 9, "markerfacecolor": "none"}),
        )
        for part, label, marker, look in series:
            if part:
                x = [step.parameters_removed_percent for step in part]
                axes.plot(x, [s.drop.slim_percent for s in part], marker, label=label, **look)
        tests = () if report.confirmation is None else report.confirmation.tests
        if tests:
            drops = [test.drop for test in tests]
            axes.errorbar(
                [test.parameters_removed_percent for test in tests],
                [original - drop.points for drop in drops],
                [
                    [drop.upper_points - drop.points for drop in drops],
                    [drop.points - drop.lower_points for drop in drops],
                ],
                fmt="s", color=ORANGE, markersize=4, linewidth=1, label="tests",
            )  # fmt: skip
        budget = original - report.settings["max_drop"]
        axes.axhline(budget, color=ORANGE, linestyle="--", label="budget")
        axes.set_xlabel("parameters removed (%)")
        unit = "%" if is_share(quantity) else "points"
        axes.set_ylabel(f"{quantity}, selection images ({unit})")
        axes.legend(loc="lower left", ncols=2)
    return svg()


def layers_plot(report: Report) -> str:
    """Draw the channels of every layer, before and after, and name those that are gone."""
    layers, removed = report.channels_per_layer, layers_removed(report)
    with _figure_as_svg(0.9 + 0.26 * len(layers)) as (axes, svg):
        rows = range(len(layers))
        before, after = zip(*layers.values(), strict=True)
        axes.barh(rows, before, height=0.75, fill=False, edgecolor=INK, label="original")
        axes.barh(rows, after, height=0.75, color=BLUE, hatch="///", edgecolor=INK,
                  linewidth=0, label="slim")  # fmt: skip
        for row, (name, (channels, left)) in enumerate(layers.items()):
            axes.annotate(removed.get(name, ""), (channels if left else 0, row), (4, 0),
                          textcoords="offset points", va="center", fontsize=8)  # fmt: skip
        axes.set_yticks(rows, [_shortened(name) for name in layers])
        axes.invert_yaxis()
        axes.set_xlabel("channels")
        axes.legend(loc="lower right", bbox_to_anchor=(1, 1), ncols=2)
    return svg()


def _shortened(name: str) -> str:
    return name if len(name) <= MAX_NAME else "…" + name[1 - MAX_NAME :]


def metrics_plot(report: Report) -> str:
    """Draw which metric proposed what was removed, as the network shrank.

    A circle is all that a step removed by proposal of one metric.
    """
    channels: Counter[tuple[float, str]] = Counter()
    for step in report.trajectory.standing_steps:
        for one in (step.candidates[number] for number in step.chosen):
            place = step.parameters_removed_percent, one.metric
            channels[place] += sum(map(len, one.channels.values()))
    names, largest = sorted({metric for _, metric in channels}), max(channels.values())
    with _figure_as_svg(1.1 + 0.32 * len(names)) as (axes, svg):
        axes.scatter(
            [percent for percent, _ in channels],
            [names.index(metric) for _, metric in channels],
            s=[12 + LARGEST_CIRCLE * count / largest for count in channels.values()],
            color=BLUE, edgecolors=INK, linewidths=0.6, alpha=0.7,
        )  # fmt: skip
        axes.set_yticks(range(len(names)), names)
        axes.set_ylim(-0.7, len(names) - 0.3)
        axes.set_xlabel("parameters removed (%); a larger circle is more channels")
    return svg()


def sensitivities_plot(report: Report) -> str:
    """Draw the measured sensitivity of every candidate, and those that are gone in the end."""
    steps, standing = report.trajectory.steps, report.trajectory.standing_steps
    proposed = [(step.number, one.sensitivity) for step in steps for one in step.candidates]
    gone = [(s.number, s.candidates[number].sensitivity) for s in standing for number in s.chosen]
    unit = sensitivity_words(report)[0]
    with _figure_as_svg(3.2) as (axes, svg):
        axes.plot(*_finite(proposed), ".", color=BLUE, alpha=0.5, label="proposed")
        axes.plot(*_finite(gone), "D", color=ORANGE, markersize=5,
                  markerfacecolor="none", label="gone in the result")  # fmt: skip
        axes.set_yscale("symlog", linthresh=LINEAR_SHARE if unit == NO_UNIT else LINEAR_NATS)
        axes.yaxis.set_major_formatter(lambda value, _: f"{value:g}".replace("-", "−"))
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.set_xlabel("step")
        axes.set_ylabel(f"sensitivity ({unit})")
        axes.legend(loc="lower left", bbox_to_anchor=(0, 1), ncols=2)
    return svg()


def _finite(pairs: list[tuple[int, float]]) -> tuple[list[int], list[float]]:
    """Return numbers and values of the pairs with a finite value."""
    finite = [(number, value) for number, value in pairs if math.isfinite(value)]
    return [number for number, _ in finite], [value for _, value in finite]


def latency_plot(report: Report) -> str:
    """Draw the timings of original and slim, a pair of rows for each runtime and batch size."""
    samples, labels = [], []
    for entry in report.latency:
        for name, values in (
            ("original", entry.original_samples_ms),
            ("slim", entry.slim_samples_ms),
        ):
            samples.append([value / entry.original_median_ms for value in values])
            labels.append(f"{entry.runtime}, batch {entry.batch_size}, {name}")
    ink = {"color": INK}
    with _figure_as_svg(0.8 + 0.75 * len(report.latency)) as (axes, svg):
        axes.boxplot(
            samples, orientation="horizontal", tick_labels=labels, widths=0.6, showfliers=False,
            boxprops=ink, whiskerprops=ink, capprops=ink,
            medianprops={"color": ORANGE, "linewidth": 2},
        )  # fmt: skip
        axes.invert_yaxis()
        axes.set_xlim(left=0)
        axes.set_xlabel("time, as a share of the original's median")
    return svg()


def comparison_plot(comparison: Comparison, metrics: list[MetricAgreement]) -> str:
    """Draw one row for each of these metrics as an SVG file with a text alternative.

    Small circles are layers, a diamond is all units, and the dashed line the agreement of the
    oracle with itself.
    """
    with _figure_as_svg(1.5 + 0.34 * len(metrics)) as (axes, svg):
        for row, one in enumerate(metrics):
            _draw_metric(axes, row, one)
        if (best := comparison.oracle_halves.spearman) is not None:
            axes.axvline(best, color=INK, linestyle="--", linewidth=1,
                         label="oracle, half by half")  # fmt: skip
        axes.set_yticks(range(len(metrics)), [one.metric for one in metrics])
        axes.set_ylim(len(metrics) - 0.4, -0.6)
        axes.set_xlim(-1.02, 1.02)
        axes.set_xlabel("Spearman correlation with the measured change of the loss")
        axes.legend(loc="lower right", bbox_to_anchor=(1, 1), ncols=4, fontsize=8.5)
    return _with_description(svg(), comparison, metrics)


def _draw_metric(axes: Axes, row: int, one: MetricAgreement) -> None:
    """Draw one row; the first one gives the legend its entries."""
    layers = [layer.spearman for layer in one.layers.values() if layer.spearman is not None]
    axes.plot(layers, [row] * len(layers), "o", color=BLUE, alpha=0.7, markersize=4.5,
              markeredgecolor=INK, markeredgewidth=0.4, zorder=3,
              label="one layer" if row == 0 else None)  # fmt: skip
    if one.overall.spearman is None:
        return
    axes.plot([one.overall.spearman], [row], "D", color=ORANGE, markeredgecolor=INK,
              markersize=7, label="all units" if row == 0 else None)  # fmt: skip


def _with_description(svg: str, comparison: Comparison, metrics: list[MetricAgreement]) -> str:
    """Return the SVG with title and description, dark on white on every page."""
    title = f"Saliency metrics against the full oracle, {PurePath(comparison.source).name}"
    rows = [
        f"{one.metric} {signed(one.overall.spearman)}, by layer {signed(one.layers_mean.spearman)}"
        for one in metrics
    ]
    rows.append(f"oracle, half by half, {signed(comparison.oracle_halves.spearman)}")
    text = f"Spearman correlation: {'; '.join(rows)}."
    start, rest = svg.split(">", 1)
    return (
        f'{start} role="img" aria-labelledby="title desc" style="color:#1a1a1a;background:#fff">\n'
        f'<title id="title">{escape(title)}</title>\n<desc id="desc">{escape(text)}</desc>{rest}'
    )
