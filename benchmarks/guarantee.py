"""Does the budget hold? Violations of the old rule and of the new one, over many draws of images.

A draw takes n of the held-out images at random. slimnet sees no others; the drop on the rest is
the truth. The old rule is that of slimnet before the confirmation: half of the images guide the
search, which goes on while the upper 95 % bound on these same images is within the budget. The new
rule is today's. The searches are fast ones, with two metrics and few images, but decide as the real
ones do. The networks come from ``train.py``. A row that is in the results is not run again:

    python benchmarks/guarantee.py --models WEIGHTS --data TEST.npz --train TRAIN.npz
    python benchmarks/guarantee.py --table
    python benchmarks/guarantee.py --simulate

``--simulate`` needs no network: paths of states that adapt to the selection images.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path
from statistics import mean
from time import perf_counter
from typing import Any

import numpy as np
import paper
import runs
import torch
from scipy.stats import beta
from torch import Tensor, nn

from slimnet import execution, export, groups, load, tasks
from slimnet.data import IndexedBatches, arrays
from slimnet.data.preprocess import build_preprocessor
from slimnet.data.source import Source
from slimnet.data.splits import selection_count, stratified_split
from slimnet.options import Options
from slimnet.records import Drop, Split, Splits
from slimnet.report.build import environment
from slimnet.search import FoundState, search_path
from slimnet.tasks.classification import Classification, mean_cross_entropy, top_1_accuracy
from slimnet.tasks.confirmation import p_value

FILE = "guarantee.json"
NETWORKS = ("lenet5", "cifar10net")
COUNTS = (400, 846, 2000)
RULES = ("old", "new")
CONFIDENCE = 0.95
FAST = {
    "metrics": ("taylor_first_order", "joint_reconstruction_error"),
    "oracle_images": 128,
    "oracle_k": 2,
    "objective": "macs",
}
TRAINING_IMAGES, CALIBRATION_IMAGES = 8192, 768


class BoundOnSelection(Classification):
    """Classification whose drop is its upper 95 % bound: the search then follows the old rule."""

    def drop(self, original: Any, slim: Any, confidence: float) -> Drop:
        """See Task."""
        return _at_bound(super().drop(original, slim, CONFIDENCE))

    def evaluate_drop(self, original: Any, slim: nn.Module, *args: Any, **named: Any) -> Drop:
        """See Task."""
        split, _, *rest = args
        return _at_bound(super().evaluate_drop(original, slim, split, CONFIDENCE, *rest, **named))


def _at_bound(drop: Drop) -> Drop:
    return replace(drop, points=drop.upper_points)


@dataclass(frozen=True)
class Pool:
    """All images, as the network takes them, and whether the original is right on each.

    ``train`` and ``held_out`` are inputs (images, ...), each with labels (images,) int64.
    """

    model: nn.Module
    train: tuple[Tensor, Tensor]
    held_out: tuple[Tensor, Tensor]
    original: tasks.Quality

    @classmethod
    def load(cls, network: str, options: argparse.Namespace) -> Pool:
        """Read the images and the weights that the options name."""
        plain = Options(arch=f"{paper.ARCHITECTURES}:{network}", **paper.preprocessing(network))
        model = load.load_model(options.models / f"{network}.pt", plain).model
        train, held_out = (
            _inputs(arrays.open_arrays(path, labelled=True), count, plain)
            for path, count in ((options.train, TRAINING_IMAGES), (options.data, None))
        )
        whole = _split("pool", held_out, torch.arange(len(held_out[1])))
        return cls(model, train, held_out, tasks.measure_quality(model, whole))

    def draw(self, images: int, draw: int, *, confirm: bool) -> tuple[Splits, Tensor]:
        """Return the splits of so many held-out images, and the places of all others, (rest,)."""
        generator = torch.Generator().manual_seed(1000 * images + draw)
        labels = self.held_out[1]
        chosen, rest = torch.randperm(len(labels), generator=generator).split(
            [images, len(labels) - images]
        )
        calibration = torch.randperm(len(self.train[1]), generator=generator)[:CALIBRATION_IMAGES]
        count = selection_count(images) if confirm else images // 2
        one, other = (chosen[x] for x in stratified_split(labels[chosen], count, draw))
        splits = Splits(
            _split("calibration", self.train, calibration),
            _split("selection", self.held_out, one),
            None, "drawn at random", None, {},
            _split("confirmation", self.held_out, other) if confirm else None,
        )  # fmt: skip
        return splits, rest

    def true_drop_points(self, slim: nn.Module, rest: Tensor) -> float:
        """Return the drop on these held-out images."""
        after = tasks.measure_quality(slim, _split("rest", self.held_out, rest))
        before = replace(self.original, correct=self.original.correct[rest])
        return tasks.paired_drop(before, after, 0.5).points


def _inputs(source: Source, count: int | None, options: Options) -> tuple[Tensor, Tensor]:
    """Return the inputs and the labels of a source, or of so many of its images at random."""
    order = torch.randperm(len(source), generator=torch.Generator().manual_seed(0))[:count]
    preprocess = build_preprocessor(options, source.read(0))
    return torch.stack([preprocess(source.read(i)) for i in order.tolist()]), source.labels[order]


def _split(name: str, images: tuple[Tensor, Tensor], places: Tensor) -> Split:
    inputs, labels = images
    return Split(
        name, len(places), IndexedBatches(inputs, places.split(250), labels, by_image=True)
    )


def run_draw(network: str, rule: str, images: int, draw: int, pool: Pool) -> dict[str, Any]:
    """Return what one rule ships on one draw of so many images, and the true drop of it."""
    options = Options(confidence=CONFIDENCE, seed=draw, **FAST)
    started = perf_counter()
    splits, rest = pool.draw(images, draw, confirm=rule == "new")
    model, example = pool.model, pool.held_out[0][:2]
    found, _ = groups.find_groups(model, example, seed=0)
    task = tasks.CLASSIFICATION
    if rule == "old":
        task = BoundOnSelection(mean_cross_entropy, top_1_accuracy)
    path = search_path(model, found, splits, options, task=task, keeps_path=rule == "new")
    state = path.last() if rule == "old" else _confirmed(path, splits, model, options)
    weights, macs = (
        [count(x) for x in (model, state.network)]
        for count in (
            execution.count_conv_weights,
            lambda x: execution.measure_size(x, example).macs,
        )
    )
    return {
        "network": network,
        "rule": rule,
        "images": images,
        "draw": draw,
        "true_drop_points": round(pool.true_drop_points(state.network, rest), 4),
        "selection_drop_points": round(state.drop.points, 4),
        "conv_weights_removed_percent": round(100 * (1 - weights[1] / weights[0]), 3),
        "macs_ratio": round(macs[0] / macs[1], 4),
        "seconds": round(perf_counter() - started, 1),
    }


def _confirmed(path: Any, splits: Splits, model: nn.Module, options: Options) -> FoundState:
    assert splits.confirmation is not None
    original = tasks.measure_quality(model, splits.confirmation)
    confirmer = export.Confirmer(
        model, original, splits.confirmation, tasks.CLASSIFICATION, torch.empty(0), options,
        lambda _: None,
    )  # fmt: skip
    return confirmer.choose(path, None)[0]


def table(found: Sequence[runs.Run]) -> str:
    """Return the table of all runs: a line for each network, number of images and rule."""
    header = ("network", "images", "rule", "draws", "true drop above 5", "95 % interval",
              "true drop, mean", "conv weights removed", "MACs ÷")  # fmt: skip
    lines = []
    for network in NETWORKS:
        for images in COUNTS:
            for rule in RULES:
                own = [
                    r
                    for r in found
                    if (r["network"], r["images"], r["rule"]) == (network, images, rule)
                ]
                if own:
                    lines.append((network, f"{images:,}", rule, *_cells(own)))
    return runs.markdown_table(header, lines)


def _cells(own: Sequence[runs.Run]) -> tuple[str, ...]:
    drops = [run["true_drop_points"] for run in own]
    broken = sum(drop > paper.BUDGET_POINTS for drop in drops)
    low, high = interval(broken, len(drops))
    return (
        str(len(own)),
        f"{100 * broken / len(drops):.1f} %",
        f"{100 * low:.1f} to {100 * high:.1f} %",
        f"{mean(drops):.2f} points",
        f"{mean(run['conv_weights_removed_percent'] for run in own):.1f} %",
        f"{mean(run['macs_ratio'] for run in own):.2f}",
    )


def interval(broken: int, draws: int) -> tuple[float, float]:
    """Return the 95 % interval of a share (Clopper and Pearson 1934)."""
    low = beta.ppf(0.025, broken, draws - broken + 1) if broken else 0.0
    high = beta.ppf(0.975, broken + 1, draws - broken) if broken < draws else 1.0
    return float(low), float(high)


STATES, POINTS_APART = 26, 0.3
VARIANTS = 15
"""Of each state of a simulated path, of which the search takes the one that looks best."""

DISCORDANT_PER_POINT = 2.5
FRESH_SHARE = 0.5
"""Of the images that states change, those that are others in every state."""


def simulated_states(
    images: int, generator: np.random.Generator
) -> Iterator[tuple[int, np.ndarray]]:
    """Yield the number of each state of a path, and what it changes on each image, (images,).

    It is 1 where only the original is right, -1 where only the state is, else 0. The true drop of
    state i is i * POINTS_APART points.
    """
    nested = generator.random(images)
    for number in range(1, STATES + 1):
        drop = number * POINTS_APART / 100
        lost, won = (DISCORDANT_PER_POINT + 1) / 2 * drop, (DISCORDANT_PER_POINT - 1) / 2 * drop
        chance = np.where(generator.random(images) < FRESH_SHARE, generator.random(images), nested)
        yield number, (chance < lost).astype(int) - (chance > 1 - won).astype(int)


Rule = Callable[[int, np.random.Generator], float]


def by_the_new_rule(
    images: int,
    generator: np.random.Generator,
    *,
    stops: bool = True,
    own_images: bool = True,
) -> float:
    """Return the true drop of what the new rule ships from a simulated path, in points.

    Of every state the search takes, of some variants, that which looks best on the selection
    images, and ends beyond the budget. Without ``stops`` all states are tested, and the last that
    passes is shipped; without ``own_images`` the selection images confirm. Both are wrong.
    """
    selection = selection_count(images)
    shipped = 0.0
    paths = [simulated_states(images, generator) for _ in range(VARIANTS)]
    for variants in zip(*paths, strict=True):
        number, changes = min(variants, key=lambda one: one[1][:selection].sum())
        if 100 * changes[:selection].mean() > paper.BUDGET_POINTS and stops:
            break
        tested = changes[selection:] if own_images else changes[:selection]
        lost, won = int((tested > 0).sum()), int((tested < 0).sum())
        if p_value(lost, won, len(tested), paper.BUDGET_POINTS) <= 1 - CONFIDENCE:
            shipped = number * POINTS_APART
        elif stops:
            break
    return shipped


def violations(rule: Rule, images: int, draws: int, seed: int) -> int:
    """Return in how many draws a rule ships more than the budget allows."""
    generator = np.random.default_rng(seed)
    return sum(rule(images, generator) > paper.BUDGET_POINTS for _ in range(draws))


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--models", type=Path, help="folder of lenet5.pt and cifar10net.pt")
    parser.add_argument("--data", type=Path, help=".npz of 10,000 held-out images and labels")
    parser.add_argument("--train", type=Path, help=".npz of training images and labels")
    parser.add_argument("--networks", nargs="*", default=NETWORKS)
    parser.add_argument("--images", nargs="*", type=int, default=COUNTS)
    parser.add_argument("--rules", nargs="*", default=RULES)
    parser.add_argument("--draws", type=int, default=150)
    parser.add_argument(
        "--results", type=Path, default=paper.RESULTS, help="folder of the raw JSON"
    )
    parser.add_argument("--table", action="store_true", help="only print the table")
    parser.add_argument("--simulate", action="store_true", help="only simulate, without networks")
    options = parser.parse_args(arguments)
    if options.simulate:
        for images in (846, 2000):
            broken = violations(by_the_new_rule, images, 400, seed=0)
            print(f"{images} images: {broken} of 400 simulated draws above the budget")
        return
    file = options.results / FILE
    if not options.table:
        _run_all(options, file)
    print(table(runs.read_runs(file)))


def _run_all(options: argparse.Namespace, file: Path) -> None:
    pools = {network: Pool.load(network, options) for network in options.networks}
    done = runs.done(file, ("network", "rule", "images", "draw"))
    for draw in range(options.draws):
        for network, images, rule in product(options.networks, options.images, options.rules):
            if (network, rule, images, draw) not in done:
                run = run_draw(network, rule, images, draw, pools[network])
                runs.add_run(file, run, environment())
                text = f"{network}, {images} images, {rule} rule, draw {draw}"
                print(f"{text}: {run['true_drop_points']} points", file=sys.stderr)


if __name__ == "__main__":
    main()
