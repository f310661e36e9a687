"""Does slimnet remove more, and gain more speed, than torch-pruning's own pruners?

The same weights, images and drop for all: 5 points on the selection images by the plain estimate,
no fine-tuning for anyone. torch-pruning: magnitude, Taylor and Hessian importance, global and
local, in 8 steps, the ratio by bisection, gradients from the images that slimnet's oracle uses.
"linear" variants also prune hidden linear layers, which slimnet leaves whole. Every run is kept in
results/peers_ROW.json, and what is there is not run again:

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
from slimnet.report import environment
from slimnet.search import LayerTimer, search
from slimnet.settings import Settings

SLIMNET: dict[str, dict[str, Any]] = {
    "slimnet_latency": {},
    "slimnet_params": {"objective": "params"},
    "slimnet_macs": {"objective": "macs"},
}
METHODS = (*SLIMNET, *VARIANTS)


def results_file(row: paper.Row, folder: Path) -> Path:
    """Return where the runs of a row are kept."""
    return folder / f"peers_{row.network}_{row.dataset}.json"


def methods_for(row: paper.Row) -> list[str]:
    """Return the methods that make sense for a network: "linear" only where there is one."""
    hidden = has_hidden_linear(getattr(networks, row.network)())
    return [m for m in METHODS if hidden or m not in VARIANTS or not VARIANTS[m].linear]


def by_torch_pruning(
    method: str, subject: paper.Subject, settings: Settings
) -> tuple[nn.Module, dict[str, Any]]:
    """Return the most pruned network within the budget, and what is to be told of its search.

    Raises:
        RuntimeError: no ratio was within the budget; the message holds the reasons.
    """
    batches = list(subject.oracle_split(settings.oracle_images).batches)

    def attempt(ratio: float) -> Attempt:
        try:
            slim = prune(subject.model, subject.example, batches, VARIANTS[method], ratio)
            return Attempt(ratio, slim, subject.drop_points(slim, subject.splits.selection))
        except Exception as error:  # torch-pruning may raise anything
            text = str(error).strip().partition("\n")[0]
            return Attempt(ratio, None, float("inf"), f"{type(error).__name__}: {text}")

    best, failures = bisect_ratio(attempt, paper.BUDGET_POINTS)
    if best is None or best.network is None:
        raise RuntimeError("; ".join(failures) or "no ratio was within the budget")
    return best.network, {"ratio": round(best.ratio, 4), "failures": failures}


def by_slimnet(
    subject: paper.Subject, settings: Settings, timer: LayerTimer
) -> tuple[nn.Module, dict[str, Any]]:
    """Return the network that slimnet's search ends at, and what is to be told of it."""
    trajectory, slim = search(
        subject.model, subject.groups, subject.splits, settings, time_layers=timer
    )
    return slim, {"steps": trajectory.kept_steps, "ended": trajectory.stopped_because}


def run_method(
    row: paper.Row, method: str, seed: int, subject: paper.Subject, options: argparse.Namespace
) -> runs.Run:
    """Prune by one method, and return what came of it, or why nothing did."""
    settings = paper.settings_for(
        row, options, seed, threads=peer_measures.THREADS, **SLIMNET.get(method, {})
    )
    run = {"network": row.network, "dataset": row.dataset, "method": method, "seed": seed}
    timer = subject.layer_timer(settings)  # translated before it is timed
    started = perf_counter()
    try:
        if method in SLIMNET:
            slim, told = by_slimnet(subject, settings, timer)
        else:
            slim, told = by_torch_pruning(method, subject, settings)
        seconds = perf_counter() - started
        return {
            **run,
            **peer_measures.sizes(subject, slim),
            **subject.drops(slim),
            "latency": peer_measures.latency(subject, slim, settings),
            "seconds": round(seconds, 1),
            "images": subject.images(settings.oracle_images),
            **told,
        }
    except (SlimnetError, RuntimeError) as error:
        return {**run, "failure": str(error), "seconds": round(perf_counter() - started, 1)}


def measure_row(row: paper.Row, options: argparse.Namespace) -> None:
    """Run what is wanted of a row and not done; tell each run.

    Raises:
        MissingError: weights or data are not at hand.
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
            told = run.get("failure") or f"{run['conv_weights_removed_percent']:.1f} %"
            tell(f"{row.title}, {method}, seed {seed}: {told} in {run['seconds']:.0f} s")


def tell(line: str) -> None:
    """Report progress."""
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
            tell(f"{row.title}: skipped, {missing}")
    files = [results_file(row, options.results) for row in rows]
    print(peers_report.report(rows, [run for file in files for run in runs.read_runs(file)]))


if __name__ == "__main__":
    main()
