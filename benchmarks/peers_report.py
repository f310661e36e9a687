"""slimnet beside torch-pruning as Markdown."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from statistics import mean

import paper
import runs
from peer_pruning import IMPORTANCES, VARIANTS

SLIMNET = ("slimnet_latency", "slimnet_params", "slimnet_macs")

TIMED = (
    " Speed-up: ONNX Runtime, one thread, original and slim in turns; in brackets the lowest and "
    "highest 95 % bound of all seeds. torch-pruning: each importance's best variant by weights."
)


@dataclass(frozen=True)
class Column:
    """A number of each run, and its format. ``compared``: higher is better."""

    value: Callable[[runs.Run], float]
    digits: int
    unit: str = ""
    compared: bool = False
    batch: str = ""

    def average(self, own: Sequence[runs.Run]) -> float:
        """Return the mean over the seeds."""
        return mean(self.value(run) for run in own)

    def cell(self, own: Sequence[runs.Run]) -> str:
        """Return mean ± standard deviation over the seeds; timings with the range of all bounds."""
        if not self.batch:
            return runs.mean_and_spread([self.value(run) for run in own], self.digits) + self.unit
        bounds = [run["latency"][self.batch]["speedup"] for run in own]
        low, high = min(low for _, low, _ in bounds), max(high for _, _, high in bounds)
        return f"{self.average(own):.{self.digits}f} [{low:.2f}, {high:.2f}]"


def speedup(batch: str) -> Column:
    """Return the column of the speed-up at a batch size."""
    return Column(lambda run: run["latency"][batch]["speedup"][0], 2, "", True, batch)


COLUMNS: Mapping[str, Column] = {
    "conv weights removed": Column(lambda run: run["conv_weights_removed_percent"], 0, " %", True),
    "parameters removed": Column(lambda run: run["parameters_removed_percent"], 0, " %", True),
    "MACs ÷": Column(lambda run: run["macs_ratio"], 2, "", True),
    "speed-up, batch 1": speedup("1"),
    "speed-up, batch 32": speedup("32"),
    "drop, selection": Column(lambda run: run["selection_drop_points"], 1),
    "drop, test": Column(lambda run: run["test_drop_points"], 1),
    "search": Column(lambda run: run["seconds"], 0, " s"),
}


def report(rows: Sequence[paper.Row], found: Sequence[runs.Run]) -> str:
    """Return the table and the failures as Markdown."""
    named = paper.by_title(rows, found)
    lines = [[title, *line] for title, own in named.items() for line in row_lines(own)]
    text = runs.markdown_table(["network", "method", *COLUMNS], lines)
    note = runs.basis(named) + TIMED if named else ""
    return "\n\n".join(part for part in (text, note, failures(found)) if part)


def row_lines(found: Sequence[runs.Run]) -> list[list[str]]:
    """Return the lines of one network: slimnet's, each importance's best variant, the best."""
    good: dict[str, list[runs.Run]] = {}
    for run in found:
        if "failure" not in run:
            good.setdefault(run["method"], []).append(run)
    lines = [line(name.replace("_", ", "), good[name]) for name in SLIMNET if name in good]
    peers = {name: own for name, own in good.items() if name in VARIANTS}
    for importance in IMPORTANCES:
        own = {n: r for n, r in peers.items() if VARIANTS[n].importance == importance}
        if own:
            best = best_of(own, COLUMNS["conv weights removed"])
            lines.append(line(f"torch-pruning, {best.replace('_', ', ')}", own[best]))
    if peers:
        lines.append(best_line(peers))
    return lines


def best_of(methods: Mapping[str, Sequence[runs.Run]], column: Column) -> str:
    """Return the name of the method with the highest mean in a column."""
    return max(methods, key=lambda name: column.average(methods[name]))


def line(name: str, own: Sequence[runs.Run]) -> list[str]:
    """Return one line of the table: a method's cells."""
    return [name, *(column.cell(own) for column in COLUMNS.values())]


def best_line(peers: Mapping[str, Sequence[runs.Run]]) -> list[str]:
    """Return a line with the best variant in each column by itself; no single network has it."""
    cells = [
        column.cell(peers[best_of(peers, column)]) if column.compared else ""
        for column in COLUMNS.values()
    ]
    return [f"torch-pruning, best of {len(peers)} in each column", *cells]


def failures(found: Sequence[runs.Run]) -> str:
    """Return a list of the runs that failed, with their reasons; empty if there are none."""
    failed = [
        f"- {run['network']}, {run['dataset']}, {run['method']}, seed {run['seed']}: "
        f"{run['failure']}"
        for run in found
        if "failure" in run
    ]
    return "Failed:\n\n" + "\n".join(failed) if failed else ""
