"""How much can go from the paper's networks at a drop of 5 points, and how fast are they then?

Every run is ``slimnet.compress`` on the authors' weights, with the plain estimate of the drop
(``--confidence 0.5``), as in the paper. A row that is in the results is not run again, so an
interrupted benchmark continues:

    python benchmarks/paper_networks.py --models MODELS --train TRAIN.npz --held-out TEST.npz
    python benchmarks/paper_networks.py --table
"""

from __future__ import annotations

import argparse
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import paper
import runs

import slimnet
from slimnet import data
from slimnet.options import Options
from slimnet.report.build import environment

RESULTS = paper.RESULTS / "paper_networks.json"
NETWORKS = ("lenet5", "cifar10net", "resnet20", "nin")
MODES: dict[str, dict[str, Any]] = {
    "paper": {"step": 1, "repair": False, "oracle_k": 16},
    "latency": {},
    "params": {"objective": "params"},
    "macs": {"objective": "macs"},
    "fine-tuned": {"objective": "params", "finetune_epochs": 2},
}


def run(network: str, mode: str, options: argparse.Namespace) -> dict[str, Any]:
    plain = Options(
        arch=f"{paper.ARCHITECTURES}:{network}",
        calibration_data=str(options.train),
        **paper.preprocessing(network),
        confidence=0.5,
        seed=options.seed,
    )
    splits = paper.halved(data.load_splits(options.held_out, plain), options.seed)
    given = replace(plain, calibration_data=None)
    weights = options.models / f"{network}.pt"
    result = slimnet.compress(weights, splits, 5, options=given, **MODES[mode])
    report = result.report
    before, after = report.original_size, report.slim_size
    return {
        "network": network,
        "mode": mode,
        "seed": options.seed,
        "conv_weights_removed_percent": 100 * (1 - after.conv_weights / before.conv_weights),
        "parameters_removed_percent": 100 * (1 - after.parameters / before.parameters),
        "macs_ratio": before.macs / after.macs,
        "selection_drop_points": report.selection_drop.points,
        "test_drop_points": report.test_drop.points,
        "images": [report.selection_drop.images, report.test_drop.images],
        "speedup": {
            str(t.batch_size): [t.speedup, t.speedup_low, t.speedup_high] for t in report.latency
        },
        "steps": report.trajectory.kept_steps,
        "search_seconds": report.seconds["searching"],
        "environment": environment(),
    }


def table(rows: list[dict[str, Any]]) -> str:
    """Return the table of all rows; several seeds give mean ± standard deviation."""
    header = ("network", "mode", "conv weights removed", "paper's best", "MACs ÷",
              "drop, selection / test", "speed-up, batch 1 / 32", "search")  # fmt: skip
    order = [(network, mode) for network in NETWORKS for mode in MODES]
    by_line: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for row in rows:
        by_line.setdefault((row["network"], row["mode"]), []).append(row)
    lines = [_cells(by_line[both]) for both in sorted(by_line, key=order.index)]
    return runs.markdown_table(header, lines)


def _cells(own: list[dict[str, Any]]) -> list[str]:
    """Return the line of one network in one mode, over any number of seeds."""

    def typical(name: str, digits: int = 0) -> str:
        return runs.mean_and_spread((row[name] for row in own), digits)

    speed = (runs.mean_and_spread((r["speedup"][size][0] for r in own), 2) for size in ("1", "32"))
    drops = (typical(f"{split}_drop_points", 1) for split in ("selection", "test"))
    return [
        own[0]["network"],
        own[0]["mode"],
        f"{typical('conv_weights_removed_percent')} %",
        f"{paper.PAPERS_BEST[own[0]['network']]} %",
        typical("macs_ratio", 2),
        f"{' / '.join(drops)} points",
        " / ".join(speed),
        f"{typical('search_seconds')} s",
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--models", type=Path, help="folder of NETWORK.pt state dicts")
    parser.add_argument("--train", type=Path, help=".npz of training images and labels")
    parser.add_argument("--held-out", type=Path, help=".npz of held-out images and labels")
    parser.add_argument("--networks", nargs="*", default=NETWORKS)
    parser.add_argument("--modes", nargs="*", default=tuple(MODES))
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--results", type=Path, default=RESULTS, help="the file of raw results")
    parser.add_argument("--table", action="store_true", help="only print the table")
    options = parser.parse_args()
    results: Path = options.results
    rows = json.loads(results.read_text()) if results.exists() else []
    done = {(row["network"], row["mode"], row["seed"]) for row in rows}
    for mode in () if options.table else options.modes:
        for network in options.networks:
            if (network, mode, options.seed) not in done:
                rows.append(run(network, mode, options))
                results.parent.mkdir(exist_ok=True)
                results.write_text(json.dumps(rows, indent=1) + "\n")
                print(table(rows[-1:]).splitlines()[-1], flush=True)
    print(table(rows))


if __name__ == "__main__":
    main()
