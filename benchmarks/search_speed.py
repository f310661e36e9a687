"""How much faster than a plain loop does slimnet's search make the same decisions?

Both remove one channel per step and choose among k = 16 candidates on the same images. The plain
loop is plain_search.py. One step of each runs in turns, because the speed of a machine may change
during a run. The first of the seeds chooses the selection images. Each network's result is in
results/search_speed_NETWORK.json.

    python benchmarks/search_speed.py --models MODELS --train TRAIN.npz --held-out TEST.npz
    python benchmarks/search_speed.py --table
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from statistics import median
from time import perf_counter
from typing import Any

import paper
import runs
import torch
from plain_search import PlainStep, plain_search
from torch import nn

from slimnet.execution.layout import Layout, lay_out
from slimnet.groups.group import Group
from slimnet.options import Options
from slimnet.records.data import Split, Splits
from slimnet.records.search import Step
from slimnet.report.build import environment
from slimnet.search.search import search

TIE_NATS = 2e-6  # a guess: about the rounding of a mean loss in float32
PLAIN_BATCH_IMAGES = 128


class EnoughStepsError(Exception):
    """Ends a search after the wanted number of steps."""


def search_first_steps(
    count: int,
    model: nn.Module,
    groups: Sequence[Group],
    splits: Splits,
    run_options: Options,
    after_step: Callable[[Step], None],
) -> list[Step]:
    """Return the first steps of a search, and end it there. The model is not changed."""
    steps: list[Step] = []

    def collect(step: Step) -> None:
        steps.append(step)
        after_step(step)
        if len(steps) == count:
            raise EnoughStepsError

    with suppress(EnoughStepsError):
        search(model, groups, splits, run_options, collect)
    return steps


def run(options: argparse.Namespace) -> dict[str, Any]:
    row = next(row for row in paper.ROWS if row.name == options.row)
    subject = paper.load_subject(row, options, options.seeds[0])
    run_options = paper.options_for(
        row, options, options.seeds[0], step=1, repair=False, oracle_k=options.candidates
    )
    calibration = plainly(subject.splits.calibration, run_options.oracle_images)
    selection = plainly(subject.splits.selection, None)
    reference = plain_search(
        subject.model, subject.groups, calibration.batches, selection, options.candidates
    )
    plain: list[PlainStep] = []
    slimnet_seconds = 0.0
    begun = perf_counter()

    def in_turns(_: Step) -> None:
        nonlocal slimnet_seconds, begun
        seconds = perf_counter() - begun
        slimnet_seconds += seconds
        plain.append(next(reference))
        both = f"slimnet {seconds:.2f} s, plain loop {plain[-1].seconds:.2f} s"
        print(f"step {len(plain)}: {both}", flush=True)
        begun = perf_counter()

    ours = search_first_steps(
        options.steps, subject.model, subject.groups, subject.splits, run_options, in_turns
    )
    plain_seconds = sum(step.seconds for step in plain)
    names = [group.name for group in subject.groups]
    return {
        "network": row.name,
        "candidates": options.candidates,
        "oracle_images": calibration.images,
        "same_decisions": agreeing(plain, ours, names),
        "steps": len(plain),
        "plain_seconds": round(plain_seconds, 2),
        "slimnet_seconds": round(slimnet_seconds, 2),
        "ratio": round(plain_seconds / slimnet_seconds, 2),
        "plain_median_step_seconds": round(median(step.seconds for step in plain), 3),
        "decisions": [[names[s.unit[0]], s.unit[1], round(s.sensitivity, 7)] for s in plain],
        "environment": environment(),
    }


def plainly(split: Split, images: int | None) -> Split:
    """Return slimnet's images in the usual memory layout, in batches of 128."""
    return lay_out(split, images, Layout(torch.contiguous_format, PLAIN_BATCH_IMAGES))


def agreeing(plain: list[PlainStep], ours: list[Step], names: list[str]) -> int:
    """Return the number of steps, from the first one, in which both removed the same channel.

    The first other step is printed, and whether it is a tie. Later steps cannot be compared.
    """
    for number, (reference, step) in enumerate(zip(plain, ours, strict=False)):
        chosen = step.candidates[step.chosen[0]]
        if chosen.channels != {names[reference.unit[0]]: (reference.unit[1],)}:
            tie = abs(chosen.sensitivity - reference.sensitivity) <= TIE_NATS
            print(f"step {number + 1} differs: {reference}, {chosen}; tie: {tie}")
            return number
    return min(len(plain), len(ours))


def table(results: Iterable[dict[str, Any]]) -> str:
    """Return the table of all networks' results."""
    header = ("network", "steps", "same decisions", "plain loop", "slimnet", "ratio")
    return runs.markdown_table(
        header,
        (
            (
                result["network"],
                str(result["steps"]),
                str(result["same_decisions"]),
                f"{result['plain_seconds']:.0f} s",
                f"{result['slimnet_seconds']:.1f} s",
                f"{result['ratio']:.1f}",
            )
            for result in results
        ),
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    paper.add_options(parser)
    parser.add_argument("--row", default="resnet20")
    parser.add_argument("--steps", type=int, default=40)
    parser.add_argument("--candidates", type=int, default=16, help="the oracle's k")
    parser.add_argument("--table", action="store_true", help="only print the table")
    options = parser.parse_args()
    files = {row.name: options.results / f"search_speed_{row.name}.json" for row in paper.ROWS}
    if not options.table:
        options.results.mkdir(exist_ok=True)
        try:
            result = run(options)
        except paper.MissingError as missing:
            parser.exit(1, f"{missing}\n")
        files[options.row].write_text(json.dumps(result, indent=1) + "\n")
    print(table(json.loads(file.read_text()) for file in files.values() if file.exists()))


if __name__ == "__main__":
    main()
