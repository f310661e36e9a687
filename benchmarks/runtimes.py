"""How fast are the networks on ONNX Runtime and on OpenVINO, slimmed for the one or the other?

Each network is slimmed once for each runtime, with the plain estimate of the drop (``--confidence
0.5``) at a budget of 5 points. Original and slim network are then timed on both runtimes, one
after the other. Runs that are in the results are not made again:

    python benchmarks/runtimes.py --models MODELS --train TRAIN.npz --held-out TEST.npz
    python benchmarks/runtimes.py --table
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path
from typing import Any

import paper
import runs

import slimnet
from slimnet.report.build import environment

RESULTS = paper.RESULTS / "runtimes.json"
RUNTIMES = ("ort-cpu", "openvino")
IMAGENET: dict[str, Any] = {"mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225)}
NETWORKS = {
    **{name: paper.preprocessing(name) for name in ("lenet5", "cifar10net", "resnet20", "nin")},
    "resnet32": IMAGENET,
}


def run(network: str, runtime: str, options: argparse.Namespace) -> runs.Run:
    """Slim a network for a runtime, and time it on all."""
    with tempfile.TemporaryDirectory() as folder:
        report = slimnet.compress(
            options.models / f"{network}.pt",
            options.held_out,
            5,
            out=Path(folder) / "slim",
            arch=f"{paper.ARCHITECTURES}:{network}",
            calibration_data=str(options.train),
            **NETWORKS[network],
            confidence=0.5,
            seed=options.seed,
            runtime=runtime,
            threads=options.threads,
        ).report
        timed = slimnet.bench(
            Path(folder) / "slim", runtimes=RUNTIMES, threads=options.threads, seed=options.seed
        )
    if timed.skipped:
        raise SystemExit("; ".join(f"{each.what}: {each.reason}" for each in timed.skipped))
    before, after, table = report.original_size, report.slim_size, report.trajectory.latency_table
    return {
        "network": network,
        "slimmed_for": runtime,
        "seed": options.seed,
        "threads": options.threads,
        "conv_weights_removed_percent": 100 * (1 - after.conv_weights / before.conv_weights),
        "macs_ratio": before.macs / after.macs,
        "drop_points": report.drop.points,
        "images": {"drop": report.drop.images},
        "paying_widths": list(table.paying_widths) if table else [],
        "search_seconds": report.seconds["searching"],
        "latency": [
            {
                "runtime": each.runtime,
                "batch_size": each.batch_size,
                "original_ms": each.original_median_ms,
                "slim_ms": each.slim_median_ms,
                "speedup": [each.speedup, each.speedup_low, each.speedup_high],
            }
            for each in timed.latency
        ],
        "warnings": list(timed.warnings),
    }


def table(found: list[runs.Run]) -> str:
    """Return a line for each run and batch size, with the times on all runtimes."""
    places = list(dict.fromkeys(each["runtime"] for one in found for each in one["latency"]))
    header = ["network", "slimmed for", "MACs ÷", "drop", "batch",
              *(f"{place}, ms" for place in places)]  # fmt: skip
    lines = []
    for one in sorted(found, key=lambda run: list(NETWORKS).index(run["network"])):
        cells = {(each["runtime"], each["batch_size"]): _times(each) for each in one["latency"]}
        for size in dict.fromkeys(size for _, size in cells):
            fixed = [one["network"], one["slimmed_for"], f"{one['macs_ratio']:.2f}",
                     f"{one['drop_points']:.1f} points", str(size)]  # fmt: skip
            lines.append([*fixed, *(cells.get((place, size), "–") for place in places)])
    return runs.markdown_table(header, lines)


def _times(timed: dict[str, Any]) -> str:
    speedup, low, high = timed["speedup"]
    times = f"{timed['original_ms']:.3g} → {timed['slim_ms']:.3g}"
    return f"{times} (÷ {speedup:.2f} [{low:.2f}, {high:.2f}])"


def main() -> None:
    """Make the runs that are missing, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--models", type=Path, help="folder of NETWORK.pt state dicts")
    parser.add_argument("--train", type=Path, help=".npz of training images and labels")
    parser.add_argument("--held-out", type=Path, help=".npz of held-out images and labels")
    parser.add_argument("--networks", nargs="*", default=tuple(NETWORKS), choices=NETWORKS)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--results", type=Path, default=RESULTS, help="the file of raw results")
    parser.add_argument("--table", action="store_true", help="only print the table")
    options = parser.parse_args()
    fields = ("network", "slimmed_for", "seed", "threads")
    for network in () if options.table else options.networks:
        for runtime in RUNTIMES:
            key = (network, runtime, options.seed, options.threads)
            if key not in runs.done(options.results, fields):
                runs.add_run(options.results, run(network, runtime, options), environment())
    print(table(runs.read_runs(options.results)))


if __name__ == "__main__":
    main()
