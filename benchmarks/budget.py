"""Does a drop within the budget hold on images that the search never saw?

slimnet with its default 95 % bound, 5 points, ``--objective params``, without training. Each seed
divides the held-out images anew into selection and test images. The search evaluates every step on
the selection images only. results/budget.json has every run; a run that is there is not repeated:

    python benchmarks/budget.py --models MODELS --train TRAIN.npz --held-out TEST.npz --seeds 0 1 2
    python benchmarks/budget.py --table
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import replace
from statistics import mean
from time import perf_counter

import paper
import runs

from slimnet import execution
from slimnet.report.build import environment
from slimnet.search.search import search

FILE = "budget.json"
CONFIDENCE = 0.95
DROPS = ("selection", "test")


def run_seed(
    row: paper.Row, seed: int, subject: paper.Subject, options: argparse.Namespace
) -> runs.Run:
    """Search once, and return the drops on the selection and on the test images."""
    plain = paper.options_for(row, options, seed, objective="params")
    started = perf_counter()
    trajectory, slim = search(
        subject.model, subject.groups, subject.splits, replace(plain, confidence=CONFIDENCE)
    )
    after, before = (execution.count_conv_weights(network) for network in (slim, subject.model))
    return {
        "network": row.network,
        "dataset": row.dataset,
        "seed": seed,
        "conv_weights_removed_percent": round(100 * (1 - after / before), 3),
        **subject.drops(slim),
        "steps": trajectory.kept_steps,
        "seconds": round(perf_counter() - started, 1),
        "images": subject.images(plain.oracle_images),
    }


def table(rows: Sequence[paper.Row], found: Sequence[runs.Run]) -> str:
    """Return the table of all rows that have runs, with the number of test drops above budget."""
    header = ("network", "draws", "conv weights removed", "drop, selection", "drop, test",
              f"test above {paper.BUDGET_POINTS:g}")  # fmt: skip
    lines = []
    for title, own in paper.by_title(rows, found).items():
        drops = {name: [run[f"{name}_drop_points"] for run in own] for name in DROPS}
        lines.append((
            title,
            str(len(own)),
            f"{runs.mean_and_spread(run['conv_weights_removed_percent'] for run in own)} %",
            *(f"{runs.mean_and_spread(drops[name], 1)} points" for name in DROPS),
            str(sum(drop > paper.BUDGET_POINTS for drop in drops["test"])),
        ))  # fmt: skip
    differences = [run["test_drop_points"] - run["selection_drop_points"] for run in found]
    larger = (
        f"{mean(differences):.1f} points larger in the mean" if differences else "not known yet"
    )
    return f"{runs.markdown_table(header, lines)}\n\nThe drop on the test images is {larger}."


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    paper.add_options(parser)
    parser.add_argument("--table", action="store_true", help="only print the table")
    options = parser.parse_args(arguments)
    rows, file = paper.chosen_rows(options), options.results / FILE
    for row in () if options.table else rows:
        done = runs.done(file, ("network", "dataset", "seed"))
        for seed in options.seeds:
            if (row.network, row.dataset, seed) in done:
                continue
            try:
                subject = paper.load_subject(row, options, seed)
            except paper.MissingError as missing:
                print(f"{row.title}: skipped, {missing}", file=sys.stderr)
                break
            run = run_seed(row, seed, subject, options)
            runs.add_run(file, run, environment())
            print(f"{row.title}, seed {seed}: {run['test_drop_points']} points", file=sys.stderr)
    print(table(rows, runs.read_runs(file)))


if __name__ == "__main__":
    main()
