"""What can go from the networks of torchvision, and is it right?

Every network, with random weights, has about 30 % of the units of every group removed at random:
masked and slim must agree in float64, ONNX Runtime with PyTorch, the .pt2 must open in a process
without torchvision, and the plan must replay. Each runs in a process of its own with a time limit;
those that are done are kept, so an interrupted benchmark goes on where it was:

    python benchmarks/zoo.py
    python benchmarks/zoo.py --networks resnet18 vgg11
    python benchmarks/zoo.py --table
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from collections import Counter
from pathlib import Path
from time import perf_counter
from typing import Any

import torch
from random_removal import TOLERANCE, compare, learns, require_intact, require_told
from runs import add_run, done, markdown_table, read_runs
from torch import Tensor, nn
from zoo_checks import (
    ONNX_TOLERANCE,
    onnx_error,
    program_error,
    random_plan,
    randomly_slimmed,
    require_replay,
    rounding_error,
)
from zoo_networks import NETWORKS, zoo_network

from slimnet import export
from slimnet.groups import Group, find_groups, output_channels, plan_for, slim_copy
from slimnet.measure import measure_size
from slimnet.report import environment
from slimnet.settings import Settings

RESULTS = Path(__file__).parent / "results" / "zoo.json"
LIMIT_SECONDS = 1800
SHIPPED_TOLERANCE = 1e-4  # beyond it slimnet ships nothing
REASONS = 3


def run(name: str) -> dict[str, Any]:
    """Return what was found of one network.

    Raises:
        AssertionError: something is not right.
        SlimnetError: it was refused, or a proof of slimnet's own failed.
    """
    torch.set_num_threads(1)
    model, example = zoo_network(name)
    started = perf_counter()
    groups, frozen = find_groups(model, example, layers="all")
    seconds = perf_counter() - started
    require_told(model, groups, frozen)
    plan = random_plan(groups)
    difference = compare(model, plan, example).worst
    assert difference <= TOLERANCE, f"masked and slim are {difference:.1e} apart"
    require_intact(model, plan)
    slim = randomly_slimmed(model, plan, example)
    trained = learns(slim, example)
    assert not trained or learns(model, example), f"the slim network cannot learn: {trained}"
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        translated = export.translate(slim, example, Settings.opset)
        onnx = onnx_error(translated, folder, SHIPPED_TOLERANCE)
        program = program_error(translated, folder)
        require_replay(lambda: zoo_network(name)[0], slim, plan, example, folder)
    return {
        **shares(model, groups, example),
        "groups": len(groups),
        "masked_slim_error": difference,
        "onnx_error": onnx,
        "rounding_error": rounding_error(slim, example),
        "program_error": program,
        "frozen": [[entry.layer, entry.channels, entry.reason] for entry in frozen],
        "seconds": seconds,
    }


def shares(model: nn.Module, groups: list[Group], example: Tensor) -> dict[str, float]:
    """Return the share of channels that can go, and of parameters and MACs with one unit left."""
    layers = output_channels(model)
    prunable = {gate.layer for group in groups for gate in group.gates} & set(layers)
    plan = plan_for(groups, [torch.arange(1, group.units) for group in groups])
    before, after = measure_size(model, example), measure_size(slim_copy(model, plan), example)
    return {
        "channels_percent": 100 * sum(layers[name] for name in prunable) / sum(layers.values()),
        "parameters_percent": 100 * (1 - after.parameters / before.parameters),
        "macs_percent": 100 * (1 - after.macs / before.macs),
    }


def run_apart(name: str, seconds: float) -> dict[str, Any]:
    """Return what a process of its own finds of a network, or what went wrong in it."""
    command = [sys.executable, __file__, "--one", name]
    try:
        process = subprocess.run(command, capture_output=True, text=True, timeout=seconds)
    except subprocess.TimeoutExpired:
        return {"error": f"no verdict after {seconds:g} s"}
    if process.returncode:
        lines = process.stderr.strip().splitlines() or [f"exit code {process.returncode}"]
        return {"error": lines[-1].removeprefix("slimnet.errors.")[:300]}
    found: dict[str, Any] = json.loads(process.stdout.splitlines()[-1])
    return found


def told_frozen(frozen: list[tuple[str, int, str]]) -> str:
    """Return the reasons that hold back most channels, without names of layers and lines of code.

    That the last layer makes the output holds for every network and is not told.
    """
    layers, channels = Counter[str](), Counter[str]()
    for _, width, reason in frozen:
        if reason == "it makes the network's output":
            continue
        short = reason.split(":")[0].split(" (")[0]
        words = [word for word in short.split() if "." not in word]
        layers[" ".join(words)] += 1
        channels[" ".join(words)] += width
    shown = [f"{layers[reason]} × {reason}" for reason, _ in channels.most_common(REASONS)]
    rest = sum(layers.values()) - sum(layers[reason] for reason, _ in channels.most_common(REASONS))
    return "; ".join(shown + ([f"{rest} others"] if rest else []))


def table(runs: list[dict[str, Any]]) -> str:
    lines = []
    for row in sorted(runs, key=lambda row: NETWORKS.index(row["network"])):
        if "error" in row:
            lines.append([row["network"], "–", "–", "–", row["error"], "–"])
            continue
        parts = (row[f"{name}_percent"] for name in ("channels", "parameters", "macs"))
        cells = [f"{part:.1f} %" for part in parts]
        told = told_frozen(row["frozen"])
        if row["onnx_error"] > ONNX_TOLERANCE:
            off = f"ONNX Runtime {row['onnx_error']:.1e} off"
            told = f"{off}; {told}" if told else off
        lines.append([row["network"], *cells, told, f"{row['seconds']:.0f}"])
    header = ["network", "channels that can go", "parameters", "MACs", "frozen layers", "seconds"]
    return markdown_table(header, lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--networks", nargs="*", default=NETWORKS, choices=NETWORKS)
    parser.add_argument("--seconds", type=float, default=LIMIT_SECONDS, help="limit for each")
    parser.add_argument("--results", type=Path, default=RESULTS)
    parser.add_argument("--table", action="store_true", help="only print the table")
    parser.add_argument("--one", choices=NETWORKS, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        print(json.dumps(run(options.one)))
        return
    finished = done(options.results, ("network",))
    for name in () if options.table else options.networks:
        if (name,) not in finished:
            found = {"network": name, **run_apart(name, options.seconds)}
            add_run(options.results, found, environment())
            print(table([found]).splitlines()[-1], flush=True)
    print(table(read_runs(options.results)))


if __name__ == "__main__":
    main()
