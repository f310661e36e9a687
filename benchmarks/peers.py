"""Does slimnet remove more, and gain more speed, than torch-pruning's own pruners?

Weights, images and drop are the same for all: 5 points on the selection images by the plain
estimate, without fine-tuning. torch-pruning has magnitude, Taylor and Hessian importance, global
and local, in 8 steps. Bisection finds the ratio. Gradients come from the images of slimnet's
oracle. "linear" variants also prune hidden linear layers, which slimnet leaves whole.
results/peers_ROW.json has every run; a run that is there is not repeated:

    python benchmarks/peers.py --models MODELS --train TRAIN.npz --held-out TEST.npz
    python benchmarks/peers.py --table
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from time import perf_counter
from typing import Any

import networks
import paper
import peer_measures
import peers_report
import runs
from peer_pruning import VARIANTS, Attempt, bisect_ratio, has_hidden_linear, prune
from torch import nn

from slimnet.errors import SlimnetError
from slimnet.options import Options
from slimnet.report.build import environment
from slimnet.search.latency_table import LayerTimer
from slimnet.search.search import search

SLIMNET: dict[str, dict[str, Any]] = {
    "slimnet_latency": {},
    "slimnet_params": {"objective": "params"},
    "slimnet_macs": {"objective": "macs"},
}
METHODS = (*SLIMNET, *VARIANTS)


def results_file(row: paper.Row, folder: Path) -> Path:
    """Return the result file of a row."""
    return folder / f"peers_{row.network}_{row.dataset}.json"


def methods_for(row: paper.Row) -> list[str]:
    """Return the methods for a network: "linear" ones only if it has hidden linear layers."""
    hidden = has_hidden_linear(getattr(networks, row.network)())
    return [m for m in METHODS if hidden or m not in VARIANTS or not VARIANTS[m].linear]


def by_torch_pruning(
    method: str, subject: paper.Subject, run_options: Options
) -> tuple[nn.Module, dict[str, Any]]:
    """Return the most pruned network within the budget, and facts about its search.

    Raises:
        RuntimeError: no ratio was within the budget; the message holds the reasons.
    """
    batches = list(subject.oracle_split(run_options.oracle_images).batches)

    def attempt(ratio: float) -> Attempt:
        try:
            slim = prune(subject.model, subject.example, batches, VARIANTS[method], ratio)
            return Attempt(ratio, slim, subject.drop_points(slim, subject.splits.selection))
        except Exception as error:  # torch-pruning may raise any error
            text = str(error).strip().partition("\n")[0]
            return Attempt(ratio, None, float("inf"), f"{type(error).__name__}: {text}")

    best, failures = bisect_ratio(attempt, paper.BUDGET_POINTS)
    if best is None or best.network is None:
        raise RuntimeError("; ".join(failures) or "no ratio was within the budget")
    return best.network, {"ratio": round(best.ratio, 4), "failures": failures}


def by_slimnet(
    subject: paper.Subject, run_options: Options, timer: LayerTimer
) -> tuple[nn.Module, dict[str, Any]]:
    """Return the network at the end of slimnet's search, and facts about the search."""
    trajectory, slim = search(
        subject.model, subject.groups, subject.splits, run_options, time_layers=timer
    )
    return slim, {"steps": trajectory.kept_steps, "ended": trajectory.stopped_because}


def run_method(
    row: paper.Row, method: str, seed: int, subject: paper.Subject, options: argparse.Namespace
) -> runs.Run:
    """Prune by one method, and return the run, or a run with the reason of its failure."""
    run_options = paper.options_for(
        row, options, seed, threads=peer_measures.THREADS, **SLIMNET.get(method, {})
    )
    run = {"network": row.network, "dataset": row.dataset, "method": method, "seed": seed}
    # the export for the timer is not part of the seconds
    timer = subject.layer_timer(run_options) if method in SLIMNET else None
    started = perf_counter()
    try:
        if timer is not None:
            slim, facts = by_slimnet(subject, run_options, timer)
        else:
            slim, facts = by_torch_pruning(method, subject, run_options)
        seconds = perf_counter() - started
        return {
            **run,
            **peer_measures.sizes(subject, slim),
            **subject.drops(slim),
            "latency": peer_measures.latency(subject, slim, run_options),
            "seconds": round(seconds, 1),
            "images": subject.images(run_options.oracle_images),
            **facts,
        }
    except (SlimnetError, RuntimeError) as error:
        return {**run, "failure": str(error), "seconds": round(perf_counter() - started, 1)}


def measure_row(row: paper.Row, options: argparse.Namespace) -> None:
    """Run the chosen methods of a row that have no result yet, and report each run.

    Raises:
        MissingError: weights or data are missing.
    """
    file = results_file(row, options.results)
    done = runs.done(file, ("method", "seed"))
    possible = [method for method in methods_for(row) if method in options.methods]
    for seed in options.seeds:
        wanted = [method for method in possible if (method, seed) not in done]
        if not wanted:
            continue
        subject = paper.load_subject(row, options, seed)
        for method in wanted:
            run = run_method(row, method, seed, subject, options)
            runs.add_run(file, run, environment())
            outcome = run.get("failure") or f"{run['conv_weights_removed_percent']:.1f} %"
            report(f"{row.title}, {method}, seed {seed}: {outcome} in {run['seconds']:.0f} s")


def report(line: str) -> None:
    """Print a line of progress to stderr."""
    print(line, file=sys.stderr, flush=True)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    paper.add_options(parser)
    parser.add_argument("--methods", nargs="*", default=METHODS, choices=METHODS, metavar="METHOD")
    parser.add_argument("--table", action="store_true", help="only print the table")
    options = parser.parse_args(arguments)
    rows = paper.chosen_rows(options)
    for row in () if options.table else rows:
        try:
            measure_row(row, options)
        except paper.MissingError as missing:
            report(f"{row.title}: skipped, {missing}")
    files = [results_file(row, options.results) for row in rows]
    print(peers_report.report(rows, [run for file in files for run in runs.read_runs(file)]))


if __name__ == "__main__":
    main()
