"""Does the myopic oracle remove more than any single metric, and how much does a larger k help?

The paper's Table III: % of convolution weights removed for a drop of 5 points, by each metric
alone, by the myopic oracle with k candidates, and by the full oracle. As in the paper, single
channels go, without repair, and the drop is the plain estimate. The last two columns are slimnet
with default options, for parameters and for latency. results/table3_ROW.json has every run with
its trajectory; a run that is there is not repeated:

    python benchmarks/table3.py --models MODELS --train TRAIN.npz --held-out TEST.npz
    python benchmarks/table3.py --table
    python benchmarks/table3.py --figure     (Figure 3, accuracy against weights removed)
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from time import perf_counter
from typing import Any

import paper
import runs
import table3_report
from table3_columns import COLUMNS, FULL_ORACLE

from slimnet import execution
from slimnet.errors import SlimnetError
from slimnet.records.search import Step
from slimnet.report.build import environment
from slimnet.search.search import search

MAX_TRAJECTORY = 100  # points of a line in Figure 3; more make the files large


def results_file(row: paper.Row, folder: Path) -> Path:
    """Return the result file of a row."""
    return folder / f"table3_{row.network}_{row.dataset}.json"


def run_column(
    row: paper.Row, column: str, seed: int, subject: paper.Subject, options: argparse.Namespace
) -> runs.Run:
    """Search with one column's options, and return the run."""
    changes = dict(COLUMNS[column].changes)
    if column == FULL_ORACLE:
        changes["oracle_k"] = subject.units
    run_options = paper.options_for(row, options, seed, **changes)
    timer = subject.layer_timer(run_options)
    started = perf_counter()
    trajectory, slim = search(
        subject.model, subject.groups, subject.splits, run_options, time_layers=timer
    )
    return {
        "network": row.network,
        "dataset": row.dataset,
        "column": column,
        "seed": seed,
        "conv_weights_removed_percent": round(removed_percent(subject, slim), 3),
        **subject.drops(slim),
        "steps": trajectory.kept_steps,
        "seconds": round(perf_counter() - started, 1),
        "images": subject.images(run_options.oracle_images),
        "ended": trajectory.stopped_because,
        "trajectory": short_trajectory(subject.before["selection"].percent, trajectory.steps),
    }


def removed_percent(subject: paper.Subject, slim: Any) -> float:
    """Return the removed share of the convolution weights, in percent."""
    before = execution.count_conv_weights(subject.model)
    return 100 * (1 - execution.count_conv_weights(slim) / before)


def short_trajectory(start_percent: float, steps: Iterable[Step]) -> dict[str, list[float]]:
    """Return removed weights and selection accuracy, both in percent, of at most 100 steps.

    Steps far beyond the budget are left out: they were evaluated on some of the images only.
    """
    taken = [step for step in steps if not step.taken_back]
    images = max((step.drop.images for step in taken), default=0)
    taken = [step for step in taken if step.drop.images == images]
    removed = [0.0, *(step.conv_weights_removed_percent for step in taken)]
    accuracy = [start_percent, *(step.drop.slim_percent for step in taken)]
    chosen = thinned(len(removed), MAX_TRAJECTORY)
    return {
        "conv_weights_removed_percent": [round(removed[i], 1) for i in chosen],
        "accuracy_percent": [round(accuracy[i], 1) for i in chosen],
    }


def thinned(count: int, max_count: int) -> list[int]:
    """Return up to ``max_count`` numbers below ``count``, evenly, with the first and the last."""
    if count <= max_count:
        return list(range(count))
    return [round(i * (count - 1) / (max_count - 1)) for i in range(max_count)]


def measure_row(row: paper.Row, options: argparse.Namespace) -> None:
    """Run the chosen columns of a row that have no result yet, and report each run.

    Raises:
        MissingError: weights or data are missing.
    """
    file = results_file(row, options.results)
    done = runs.done(file, ("column", "seed"))
    for seed in options.seeds:
        wanted = [column for column in options.columns if (column, seed) not in done]
        if not wanted:
            continue
        subject = paper.load_subject(row, options, seed)
        for column in wanted:
            if column == FULL_ORACLE and subject.units > options.full_oracle_units:
                report(f"{row.title}: full oracle left out, {subject.units} units (see --help)")
                continue
            try:
                run = run_column(row, column, seed, subject, options)
            except SlimnetError as error:
                report(f"{row.title}, {column}, seed {seed}: failed, {error}")
                continue
            runs.add_run(file, run, environment())
            share, seconds = run["conv_weights_removed_percent"], run["seconds"]
            report(f"{row.title}, {column}, seed {seed}: {share:.1f} % in {seconds:.0f} s")


def report(line: str) -> None:
    """Print a line of progress to stderr."""
    print(line, file=sys.stderr, flush=True)


def all_runs(rows: Sequence[paper.Row], folder: Path) -> list[runs.Run]:
    """Return the finished runs of some rows."""
    return [run for row in rows for run in runs.read_runs(results_file(row, folder))]


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    paper.add_options(parser)
    parser.add_argument("--columns", nargs="*", default=list(COLUMNS), choices=COLUMNS)
    limit = "largest network, in units, for the full oracle (default 150: the two smallest)"
    parser.add_argument("--full-oracle-units", type=int, default=150, help=limit)
    parser.add_argument("--table", action="store_true", help="only print the tables")
    parser.add_argument("--figure", action="store_true", help="only draw Figure 3, one SVG a row")
    options = parser.parse_args(arguments)
    rows = paper.chosen_rows(options)
    if options.figure:
        import table3_figure  # here, because it needs matplotlib

        for line in table3_figure.draw_rows(rows, all_runs(rows, options.results), options.results):
            report(line)
        return
    for row in () if options.table else rows:
        try:
            measure_row(row, options)
        except paper.MissingError as missing:
            report(f"{row.title}: skipped, {missing}")
    print(table3_report.report(rows, all_runs(rows, options.results)))


if __name__ == "__main__":
    main()
