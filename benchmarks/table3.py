"""Does the myopic oracle find more to remove than any single metric, and what does k buy?

The paper's Table III: % of convolution weights that go for a drop of 5 points, by each metric
alone, by the myopic oracle with k candidates, by the full oracle; single channels, no repair, the
plain estimate of the drop, all as in the paper. The last two columns are slimnet as it comes,
after parameters and after latency. Every run is kept in results/table3_ROW.json with its
trajectory, and what is there is not run again:

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

from slimnet import measure
from slimnet.errors import SlimnetError
from slimnet.records import Step
from slimnet.report import environment
from slimnet.search import search

LONGEST_TRAJECTORY = 100


def results_file(row: paper.Row, folder: Path) -> Path:
    """Return where the runs of a row are kept."""
    return folder / f"table3_{row.network}_{row.dataset}.json"


def run_column(
    row: paper.Row, column: str, seed: int, subject: paper.Subject, options: argparse.Namespace
) -> runs.Run:
    """Search by one column's dials, and return what came of it."""
    dials = dict(COLUMNS[column].dials)
    if column == FULL_ORACLE:
        dials["oracle_k"] = subject.units
    settings = paper.settings_for(row, options, seed, **dials)
    timer = subject.layer_timer(settings)
    started = perf_counter()
    trajectory, slim = search(
        subject.model, subject.groups, subject.splits, settings, time_layers=timer
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
        "images": subject.images(settings.oracle_images),
        "ended": trajectory.stopped_because,
        "trajectory": short_trajectory(subject.before["selection"].percent, trajectory.steps),
    }


def removed_percent(subject: paper.Subject, slim: Any) -> float:
    """Return the share of the convolution weights that is gone, in percent."""
    before = measure.count_conv_weights(subject.model)
    return 100 * (1 - measure.count_conv_weights(slim) / before)


def short_trajectory(start_percent: float, steps: Iterable[Step]) -> dict[str, list[float]]:
    """Return removed weights and selection accuracy, both in percent, of at most 100 steps.

    Those that were not judged on all images, since they were far beyond the budget, are left out.
    """
    walked = [step for step in steps if not step.taken_back]
    images = max((step.drop.images for step in walked), default=0)
    walked = [step for step in walked if step.drop.images == images]
    removed = [0.0, *(step.conv_weights_removed_percent for step in walked)]
    accuracy = [start_percent, *(step.drop.slim_percent for step in walked)]
    kept = thinned(len(removed), LONGEST_TRAJECTORY)
    return {
        "conv_weights_removed_percent": [round(removed[i], 1) for i in kept],
        "accuracy_percent": [round(accuracy[i], 1) for i in kept],
    }


def thinned(count: int, most: int) -> list[int]:
    """Return ``most`` of the numbers below ``count`` at most, evenly, first and last included."""
    if count <= most:
        return list(range(count))
    return [round(i * (count - 1) / (most - 1)) for i in range(most)]


def measure_row(row: paper.Row, options: argparse.Namespace) -> None:
    """Run what is wanted of a row and not done; tell each run, and what cannot be run.

    Raises:
        MissingError: weights or data are not at hand.
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
                tell(f"{row.title}: full oracle left out, {subject.units} units (see --help)")
                continue
            try:
                run = run_column(row, column, seed, subject, options)
            except SlimnetError as error:
                tell(f"{row.title}, {column}, seed {seed}: failed, {error}")
                continue
            runs.add_run(file, run, environment())
            share, seconds = run["conv_weights_removed_percent"], run["seconds"]
            tell(f"{row.title}, {column}, seed {seed}: {share:.1f} % in {seconds:.0f} s")


def tell(line: str) -> None:
    """Report progress."""
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
            tell(line)
        return
    for row in () if options.table else rows:
        try:
            measure_row(row, options)
        except paper.MissingError as missing:
            tell(f"{row.title}: skipped, {missing}")
    print(table3_report.report(rows, all_runs(rows, options.results)))


if __name__ == "__main__":
    main()
