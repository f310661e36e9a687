"""The report's figures, as SVG text that takes the colours of the page around it.

Colours never carry meaning alone: every series has its own marker, hatch or line style as well.
"""

from __future__ import annotations

import io
import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from slimnet.records import Report, Step
from slimnet.report.numbers import is_share

matplotlib.use("Agg")

INK = "#010203"
BLUE, ORANGE, GREEN = "#3c8dd0", "#e08214", "#1b9e77"
WIDTH_INCHES = 7.2
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


def trajectory_plot(report: Report) -> str:
    """Draw accuracy against parameters removed, step by step, with its bounds and the budget."""
    steps = [step for step in report.trajectory.steps if not step.taken_back]
    back = [step for step in report.trajectory.steps if step.taken_back]
    kept, quantity = report.trajectory.kept_steps, report.selection_drop.quantity
    with figure_as_svg(3.6) as (figure, axes, svg):
        x = [step.parameters_removed_percent for step in steps]
        original = report.selection_drop.original_percent
        axes.fill_between(
            x,
            [original - step.drop.upper_points for step in steps],
            [original - step.drop.lower_points for step in steps],
            color=BLUE, alpha=0.25, linewidth=0, label="bounds of the drop",
        )  # fmt: skip
        accuracy = [step.drop.slim_percent for step in steps]
        axes.plot(x, accuracy, "o-", color=BLUE, markersize=4, label="after each step")
        if back:
            axes.plot(
                [step.parameters_removed_percent for step in back],
                [step.drop.slim_percent for step in back],
                "x", color=INK, markersize=5, label="taken back",
            )  # fmt: skip
        axes.axhline(
            original - report.settings["max_drop"], color=ORANGE, linestyle="--", label="budget"
        )
        chosen = [step for step in steps if step.number == kept]
        axes.plot(
            [step.parameters_removed_percent for step in chosen],
            [step.drop.slim_percent for step in chosen],
            "D", color=ORANGE, markersize=9, markerfacecolor="none", label="chosen",
        )  # fmt: skip
        axes.set_xlabel("parameters removed (%)")
        unit = "%" if is_share(quantity) else "points"
        axes.set_ylabel(f"{quantity}, selection split ({unit})")
        axes.legend(loc="lower left", ncols=2)
        figure.tight_layout()
    return svg()


def layers_plot(report: Report) -> str:
    """Draw the channels of every layer, before and after."""
    layers = report.channels_per_layer
    with figure_as_svg(0.9 + 0.26 * len(layers)) as (figure, axes, svg):
        places = range(len(layers))
        before = [before for before, _ in layers.values()]
        after = [after for _, after in layers.values()]
        axes.barh(places, before, height=0.75, fill=False, edgecolor=INK, label="original")
        axes.barh(places, after, height=0.75, color=BLUE, hatch="///", edgecolor=INK,
                  linewidth=0, label="slim")  # fmt: skip
        axes.set_yticks(places, [_short(name) for name in layers])
        axes.invert_yaxis()
        axes.set_xlabel("channels")
        axes.legend(loc="lower right", bbox_to_anchor=(1, 1), ncols=2)
        figure.tight_layout()
    return svg()


def metrics_plot(report: Report) -> str:
    """Draw which metric proposed what was removed, as the network shrank."""
    kept = _kept(report)
    names = sorted({step.candidates[step.chosen].metric for step in kept})
    with figure_as_svg(1.1 + 0.32 * len(names)) as (figure, axes, svg):
        for place, name in enumerate(names):
            own = [step for step in kept if step.candidates[step.chosen].metric == name]
            axes.scatter(
                [step.parameters_removed_percent for step in own],
                [place] * len(own),
                s=[12 + 6 * step.channels_removed for step in own],
                color=BLUE, edgecolors=INK, linewidths=0.6, alpha=0.7,
            )  # fmt: skip
        axes.set_yticks(range(len(names)), names)
        axes.set_ylim(-0.7, len(names) - 0.3)
        axes.set_xlabel("parameters removed (%); the larger a circle, the more channels went")
        figure.tight_layout()
    return svg()


def sensitivities_plot(report: Report) -> str:
    """Draw the change of the loss that was measured for every candidate, and the chosen ones."""
    steps = report.trajectory.steps
    with figure_as_svg(3.2) as (figure, axes, svg):
        every = [
            (step.number, candidate.sensitivity)
            for step in steps
            for candidate in step.candidates
            if candidate.images and math.isfinite(candidate.sensitivity)
        ]
        axes.plot(*zip(*every, strict=True), ".", color=BLUE, alpha=0.5, label="proposed")
        chosen = [(step.number, step.candidates[step.chosen].sensitivity) for step in steps]
        axes.plot(*zip(*chosen, strict=True), "D", color=ORANGE, markersize=5,
                  markerfacecolor="none", label="taken")  # fmt: skip
        axes.set_yscale("symlog", linthresh=1e-3)
        axes.set_xlabel("step")
        axes.set_ylabel("change of the loss (nats)")
        axes.legend(loc="upper left", ncols=2)
        figure.tight_layout()
    return svg()


def latency_plot(report: Report) -> str:
    """Draw the timings of original and slim, one row a runtime and batch size."""
    with figure_as_svg(0.8 + 0.75 * len(report.latency)) as (figure, axes, svg):
        samples, labels = [], []
        for entry in report.latency:
            where = f"{entry.runtime}, batch {entry.batch_size}"
            unit = entry.original_median_ms
            for name, values in (
                ("original", entry.original_samples_ms),
                ("slim", entry.slim_samples_ms),
            ):
                samples.append([value / unit for value in values])
                labels.append(f"{where}, {name}")
        axes.boxplot(
            samples, orientation="horizontal", tick_labels=labels, widths=0.6, showfliers=False,
            boxprops={"color": INK}, whiskerprops={"color": INK}, capprops={"color": INK},
            medianprops={"color": ORANGE, "linewidth": 2},
        )  # fmt: skip
        axes.invert_yaxis()
        axes.set_xlim(left=0)
        axes.set_xlabel("time, as a share of the original's median")
        figure.tight_layout()
    return svg()


def _kept(report: Report) -> list[Step]:
    trajectory = report.trajectory
    return [s for s in trajectory.steps if s.number <= trajectory.kept_steps and not s.taken_back]


@contextmanager
def figure_as_svg(height_inches: float) -> Iterator[tuple[Figure, Axes, Callable[[], str]]]:
    """Give a figure, its axes, and a function that returns it as SVG once it is drawn."""
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(WIDTH_INCHES, height_inches))
        drawn: list[str] = []
        yield figure, figure.add_subplot(), lambda: drawn[0]
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
    # only the element itself, in whatever colour the page writes
    return text[text.index("<svg") :].replace(INK, "currentColor")


def _short(name: str, most: int = 38) -> str:
    return name if len(name) <= most else "…" + name[1 - most :]
