"""What can go from the networks of torchvision, and is the result right?

From each network, with random weights, about 30 % of the units of every group are removed at
random. Masked and slim must agree in float64, and ONNX Runtime with PyTorch. The .pt2 must open in
a process without torchvision, and the plan must replay. Each network runs in its own process with a
time limit. A network with a result is not run again, so an interrupted benchmark continues:

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
from random_removal import TOLERANCE, compare, require_complete, require_intact, training_error
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
from slimnet.execution.layers import output_channels
from slimnet.execution.size import measure_size
from slimnet.groups.cut import slim_copy
from slimnet.groups.find import find_groups
from slimnet.groups.group import Group, plan_for
from slimnet.options import Options
from slimnet.report.build import environment

RESULTS = Path(__file__).parent / "results" / "zoo.json"
LIMIT_SECONDS = 1800
REASONS = 3


def run(name: str) -> dict[str, Any]:
    """Check one network, and return its row.

    Raises:
        AssertionError: a check failed.
        SlimnetError: slimnet refused the network, or one of its proofs failed.
    """
    torch.set_num_threads(1)
    model, example = zoo_network(name)
    started = perf_counter()
    groups, frozen = find_groups(model, example, layers="all")
    seconds = perf_counter() - started
    require_complete(model, groups, frozen)
    plan = random_plan(groups)
    difference = compare(model, plan, example).worst
    assert difference <= TOLERANCE, f"masked and slim are {difference:.1e} apart"
    require_intact(model, plan)
    slim = randomly_slimmed(model, plan, example)
    trained = training_error(slim, example)
    assert not trained or training_error(model, example), (
        f"the slim network cannot learn: {trained}"
    )
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        translated = export.translate(slim, example, Options.opset)
        onnx = onnx_error(translated, folder)
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
    """Return the share of channels that can go, and of parameters and MACs that go with them.

    For the latter two, every group is down to one unit.
    """
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
    """Run one network in its own process, and return its row or the error."""
    command = [sys.executable, __file__, "--one", name]
    try:
        process = subprocess.run(command, capture_output=True, text=True, timeout=seconds)
    except subprocess.TimeoutExpired:
        return {"error": f"no result after {seconds:g} s"}
    if process.returncode:
        lines = process.stderr.strip().splitlines() or [f"exit code {process.returncode}"]
        return {"error": lines[-1].removeprefix("slimnet.errors.")[:300]}
    found: dict[str, Any] = json.loads(process.stdout.splitlines()[-1])
    return found


def frozen_reasons(frozen: list[tuple[str, int, str]]) -> str:
    """Return the reasons for most frozen channels, without names of layers and lines of code.

    The reason of the last layer is left out: it makes the output of every network.
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
        reasons = frozen_reasons(row["frozen"])
        if row["onnx_error"] > ONNX_TOLERANCE:
            off = f"ONNX Runtime {row['onnx_error']:.1e} off"
            reasons = f"{off}; {reasons}" if reasons else off
        lines.append([row["network"], *cells, reasons, f"{row['seconds']:.0f}"])
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
