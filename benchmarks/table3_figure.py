"""Figure 3 of the paper: accuracy against convolution weights removed, one line a metric.

Drawn by ``python benchmarks/table3.py --figure`` from the trajectories in results/; needs
matplotlib.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy
import paper
import runs
from table3_columns import CANDIDATES, COLUMNS, SINGLE

ORACLE = f"myopic_{CANDIDATES[-1]}"
POINTS = 60
# Okabe and Ito's colours, for colour-blind readers; dashes for print without colours.
STYLES = {
    "mean_square_weight": ("#e69f00", (4, 2)),
    "mean_activation": ("#0072b2", (1.5, 1.5)),
    "mean_gradient": ("#009e73", (7, 2)),
    "taylor_first_order": ("#d55e00", (5, 1.5, 1, 1.5)),
    "taylor_second_order": ("#cc79a7", (5, 1.5, 1, 1.5, 1, 1.5)),
}


def draw_rows(rows: Sequence[paper.Row], found: Sequence[runs.Run], folder: Path) -> Iterator[str]:
    """Write one SVG for each row that has runs, and yield a line about each."""
    for row in rows:
        own = [r for r in found if (r["network"], r["dataset"]) == (row.network, row.dataset)]
        curves = {
            column: curve([r["trajectory"] for r in own if r["column"] == column])
            for column in (*SINGLE, ORACLE)
            if any(r["column"] == column for r in own)
        }
        if curves:
            file = folder / f"table3_{row.network}_{row.dataset}.svg"
            draw(row.title, curves, file)
            yield f"{file.name}: {file.stat().st_size / 1000:.0f} kB"


def curve(trajectories: Sequence[dict[str, list[float]]]) -> dict[str, Any]:
    """Return the mean accuracy over the seeds and its range, up to the end of the shortest seed.

    Between the steps of a seed the accuracy is interpolated.
    """
    shares = [t["conv_weights_removed_percent"] for t in trajectories]
    removed = numpy.linspace(0, min(one[-1] for one in shares), POINTS)
    accuracy = numpy.array(
        [
            numpy.interp(removed, one, t["accuracy_percent"])
            for one, t in zip(shares, trajectories, strict=True)
        ]
    )
    return {
        "removed": removed.round(2),
        "mean": accuracy.mean(0).round(2),
        "low": accuracy.min(0),
        "high": accuracy.max(0),
        "seeds": len(trajectories),
    }


def draw(title: str, curves: dict[str, dict[str, Any]], file: Path) -> None:
    """Draw the curves by column into an SVG file; the same curves give the same bytes."""
    figure, axes = _empty(title)
    for column, line in curves.items():
        seeds = f"{line['seeds']} seed" + ("s" if line["seeds"] > 1 else "")
        label = f"{COLUMNS[column].heading}, {seeds}"
        if column == ORACLE:
            axes.plot(line["removed"], line["mean"], color="black", lw=2, label=f"oracle, {label}")
            axes.fill_between(line["removed"], line["low"], line["high"], color="black", alpha=0.15)
        else:
            colour, dashes = STYLES[column]
            axes.plot(line["removed"], line["mean"], color=colour, dashes=dashes, label=label)
    start = numpy.mean([line["mean"][0] for line in curves.values()])
    axes.axhline(start - paper.BUDGET_POINTS, color="grey", lw=0.8)
    axes.annotate(
        f"{paper.BUDGET_POINTS:g} points below the start",
        (1, start - paper.BUDGET_POINTS), xycoords=("axes fraction", "data"),
        xytext=(-4, 3), textcoords="offset points", ha="right", fontsize=8, color="grey",
    )  # fmt: skip
    axes.legend(fontsize=8, frameon=False, loc="lower left")
    file.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(file, format="svg", metadata={"Date": None, "Creator": None})
    lines = file.read_text(encoding="utf-8").splitlines()
    file.write_text("\n".join(line.rstrip() for line in lines) + "\n", encoding="utf-8")


def _empty(title: str) -> tuple[Any, Any]:
    try:
        import matplotlib
        from matplotlib.figure import Figure
    except ImportError:
        raise SystemExit("the figure needs matplotlib: pip install matplotlib") from None
    matplotlib.rcParams.update({"svg.fonttype": "none", "svg.hashsalt": "table3"})
    figure = Figure(figsize=(6, 4), layout="constrained")
    axes = figure.subplots()
    axes.set_title(title, fontsize=10)
    axes.set_xlabel("convolution weights removed (%)")
    axes.set_ylabel("accuracy on selection images (%)")
    axes.spines[["top", "right"]].set_visible(False)
    return figure, axes
