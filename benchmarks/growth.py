"""How do a search's seconds and trials grow with depth and width?

ResNets for 32x32 images with zero-padded shortcuts, random weights and random images: what the
search removes means nothing, what it measures does. Every search goes on until it ends.

    python benchmarks/growth.py --depths 20 32 56 110 --widths 16 32 64
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from time import perf_counter
from typing import Any

import runs
import torch
from networks import PaddedResNet
from random_weights import randomise

from slimnet.groups import find_branches, find_groups
from slimnet.options import Options
from slimnet.records import Split, Splits, Step
from slimnet.report.build import environment
from slimnet.search import search

RESULTS = Path(__file__).parent / "results" / "growth.json"
IMAGES, BATCH = 1024, 64


def random_splits(model: torch.nn.Module) -> Splits:
    """Return splits of random images, labelled with the network's own answers."""
    made = []
    for number, name in enumerate(("calibration", "selection", "test")):
        inputs = torch.randn(IMAGES, 3, 32, 32, generator=torch.Generator().manual_seed(number))
        with torch.no_grad():
            batches = [(part, model(part).argmax(1)) for part in inputs.split(BATCH)]
        made.append(Split(name, IMAGES, batches))
    return Splits(*made, description="random", classes=None, preprocessing={})


def run(depth: int, width: int) -> dict[str, Any]:
    """Search one network, and return the seconds and trials of its rounds."""
    torch.manual_seed(0)
    model = PaddedResNet(depth, width).eval()
    randomise(model, torch.randn(BATCH, 3, 32, 32), 0)
    splits = random_splits(model)
    example = splits.calibration.batches[0][0][:2]
    groups, _ = find_groups(model, example)
    branches, _ = find_branches(model, groups, example)
    started, tables, images = perf_counter(), [], 0
    steps: list[Step] = []

    def watch(event: str | Step) -> None:
        nonlocal images
        if isinstance(event, Step):
            if not steps or steps[-1].candidates != event.candidates:
                tables.append(len(event.candidates))
                images += sum(candidate.images for candidate in event.candidates)
            steps.append(event)

    options = Options(max_drop=5, confidence=0.5, objective="macs")
    trajectory, _ = search(model, groups, splits, options, watch, branches=branches)
    return {
        "depth": depth,
        "width": width,
        "groups": len(groups),
        "branches": len(branches),
        "units": sum(group.units for group in groups),
        "seconds": round(perf_counter() - started, 1),
        "trials_by_round": tables,
        "images_in_trials": images,
        "tries": len(steps),
        "kept_steps": trajectory.kept_steps,
        "stopped_because": trajectory.stopped_because,
    }


def table(rows: list[dict[str, Any]]) -> str:
    """Return the table of all runs."""
    header = ("depth", "width", "groups", "branches", "units", "rounds", "trials, first round",
              "trials", "tries", "seconds")  # fmt: skip
    lines = [
        [
            *(str(row[name]) for name in ("depth", "width", "groups", "branches", "units")),
            str(len(row["trials_by_round"])),
            str(row["trials_by_round"][0]),
            str(sum(row["trials_by_round"])),
            str(row["tries"]),
            f"{row['seconds']:.0f}",
        ]
        for row in rows
    ]
    return runs.markdown_table(header, lines)


def main() -> None:
    """Run all depths at the first width, and the first depth at all widths."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--depths", nargs="+", type=int, default=[20, 32, 56, 110])
    parser.add_argument("--widths", nargs="+", type=int, default=[16, 32, 64])
    parser.add_argument("--table", action="store_true", help="only print the table")
    options = parser.parse_args()
    if options.table:
        print(table(json.loads(RESULTS.read_text(encoding="utf-8"))["runs"]))
        return
    pairs = [(depth, options.widths[0]) for depth in options.depths]
    pairs += [(options.depths[0], width) for width in options.widths[1:]]
    rows = []
    for depth, width in pairs:
        rows.append(run(depth, width))
        print(json.dumps(rows[-1]), flush=True)
    content = {"environment": environment(), "runs": rows}
    RESULTS.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
