"""Parts that benchmarks share: the rows of the paper's Table III, their weights and their data.

Persand, Anderson and Gregg, "Composition of Saliency Metrics for Pruning with a Myopic Oracle",
2020. A row without weights or data raises MissingError, and is left out.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from slimnet import data, export, groups, load, tasks
from slimnet.data import splits as data_splits
from slimnet.errors import InputError
from slimnet.execution.layout import Layout, lay_out
from slimnet.options import Options
from slimnet.records.data import Split, Splits
from slimnet.search.latency_table import LayerTimer

ARCHITECTURES = Path(__file__).parent / "networks.py"
RESULTS = Path(__file__).parent / "results"
BUDGET_POINTS = 5.0
# Caffe's preprocessing: BGR, mean subtracted, 1/256; lenet5 was trained without the mean.
SCALE = 1 / 256
MEAN = (123.675 / 256, 116.28 / 256, 103.53 / 256)
CLASSES = {"cifar10": 10, "cifar100": 100}
DATASET_TITLES = {"cifar10": "CIFAR-10", "cifar100": "CIFAR-100"}


@dataclass(frozen=True)
class Row:
    """One row of Table III. ``papers_best`` is its best result, in % of convolution weights."""

    network: str
    dataset: str
    title: str
    papers_best: str = "–"

    @property
    def name(self) -> str:
        """The name of the row in files and options."""
        return self.network if self.dataset == "cifar10" else f"{self.network}_{self.dataset}"


ROWS = (
    Row("lenet5", "cifar10", "LeNet-5, CIFAR-10", "29 ± 5"),
    Row("cifar10net", "cifar10", "CIFAR10 net, CIFAR-10", "43 ± 3"),
    Row("resnet20", "cifar10", "ResNet-20, CIFAR-10", "11 ± 3"),
    Row("nin", "cifar10", "NIN, CIFAR-10", "33 ± 6"),
    Row("alexnet", "cifar10", "AlexNet, CIFAR-10"),
    Row("resnet20", "cifar100", "ResNet-20, CIFAR-100"),
    Row("nin", "cifar100", "NIN, CIFAR-100"),
    Row("alexnet", "cifar100", "AlexNet, CIFAR-100"),
)
PAPERS_BEST = {row.network: row.papers_best for row in ROWS if row.dataset == "cifar10"}


class MissingError(Exception):
    """Weights or data of a row are missing. The message names them, and the option to give."""


@dataclass(frozen=True)
class Subject:
    """The network of a row, and its data as one seed draws them.

    ``before`` has the network's own quality by split name.
    """

    model: nn.Module
    splits: Splits
    example: Tensor
    groups: Sequence[groups.Group]
    before: Mapping[str, tasks.Quality]

    @property
    def units(self) -> int:
        """The number of units that could go, over all groups."""
        return sum(group.units for group in self.groups)

    @cached_property
    def _translated(self) -> export.Translated:
        return export.translate(self.model, self.example, Options.opset)

    def layer_timer(self, run_options: Options) -> LayerTimer:
        """Return a function that times the layers of slim networks, for the search."""
        return export.layer_timer(self._translated, run_options)

    def drop_points(self, slim: nn.Module, split: Split) -> float:
        """Return the plain estimate of the drop on a split, in percentage points."""
        after = tasks.measure_quality(slim, split)
        return tasks.paired_drop(self.before[split.name], after, 0.5).points

    def drops(self, slim: nn.Module) -> dict[str, float]:
        """Return the drops on selection and test images, with the names that a run has for them."""
        return {
            f"{split.name}_drop_points": round(self.drop_points(slim, split), 3)
            for split in self.splits.evaluated
        }

    def oracle_split(self, max_images: int) -> Split:
        """Return the calibration images for saliency and oracle: every n-th, up to ``max_images``.

        They are in memory, channels last, in batches of 128.
        """
        return lay_out(self.splits.calibration, max_images, Layout(torch.channels_last, 128))

    def images(self, max_for_oracle: int) -> dict[str, int]:
        """Return the number of images in each split, and of those that the oracle sees."""
        counts = {split.name: split.images for split in self.splits.all}
        return {**counts, "oracle": self.oracle_split(max_for_oracle).images}


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the options for weights, data, rows and seeds."""
    parser.add_argument("--models", type=Path, help="folder of NETWORK.pt, NETWORK_cifar100.pt")
    forms = ".npz of images and labels, a folder, or torchvision:NAME@ROOT"
    parser.add_argument("--train", help=f"CIFAR-10 images for calibration: {forms}")
    parser.add_argument("--held-out", help=f"CIFAR-10 images for selection and test: {forms}")
    parser.add_argument("--train-cifar100", help="the same of CIFAR-100")
    parser.add_argument("--held-out-cifar100", help="the same of CIFAR-100")
    names = [row.name for row in ROWS]
    parser.add_argument("--rows", nargs="*", default=names, choices=names, metavar="ROW")
    parser.add_argument("--seeds", nargs="*", type=int, default=[0, 1, 2], metavar="SEED")
    count = Options.oracle_images
    text = f"images that the oracle measures on (default {count}); fewer for large networks"
    parser.add_argument("--oracle-images", type=int, default=count, help=text)
    parser.add_argument("--results", type=Path, default=RESULTS, help="folder of the raw JSON")


def chosen_rows(options: argparse.Namespace) -> list[Row]:
    """Return the rows that ``--rows`` names, in the paper's order."""
    return [row for row in ROWS if row.name in options.rows]


def by_title(rows: Sequence[Row], runs: Sequence[dict[str, Any]]) -> dict[str, list[Any]]:
    """Return the runs of each row that has some, by its title, in the order of the rows."""
    own = {
        row.title: [r for r in runs if (r["network"], r["dataset"]) == (row.network, row.dataset)]
        for row in rows
    }
    return {title: found for title, found in own.items() if found}


def preprocessing(network: str) -> dict[str, Any]:
    """Return the options that turn pixels into the inputs that the network was trained on."""
    return {
        "channels": "bgr",
        "scale": SCALE,
        "mean": None if network == "lenet5" else MEAN,
    }


def options_for(row: Row, options: argparse.Namespace, seed: int, **changes: Any) -> Options:
    """Return the options of a run: 5 points by the plain estimate, as in the paper."""
    train, _ = _data(row, options)
    return Options(
        arch=f"{ARCHITECTURES}:{row.network}",
        arch_arg=(f"num_classes={CLASSES[row.dataset]}",),
        calibration_data=train,
        max_drop=BUDGET_POINTS,
        confidence=0.5,
        seed=seed,
        **preprocessing(row.network),
        **{"oracle_images": options.oracle_images, **changes},
    )


def load_subject(row: Row, options: argparse.Namespace, seed: int) -> Subject:
    """Load the network of a row and draw its splits.

    Raises:
        MissingError: weights or data are missing, or cannot be used.
    """
    _, held_out = _data(row, options)
    if options.models is None or not (weights := options.models / f"{row.name}.pt").exists():
        raise MissingError(f"no {row.name}.pt in --models; benchmarks/train.py can train one")
    if held_out is None:
        raise MissingError(f"no {DATASET_TITLES[row.dataset]} images: give {_option(row)}")
    run_options = options_for(row, options, seed)
    try:
        model = load.load_model(weights, run_options).model
        splits = halved(data.load_splits(held_out, run_options), seed)
        example = data.check_pair(model, splits)
        found, _ = groups.find_groups(model, example, seed=seed)
        before = {s.name: tasks.measure_quality(model, s) for s in splits.evaluated}
        tasks.require_better_than_chance(before["selection"], splits.selection)
    except InputError as error:
        raise MissingError(str(error)) from error
    return Subject(model, splits, example, found, before)


def halved(splits: Splits, seed: int) -> Splits:
    """Return the splits with half of the selection images as test images, each class in both."""
    own = tasks.CLASSIFICATION.batches(splits.selection.batches)
    one, other = data_splits.stratified_split(own.labels, own.images // 2, seed)
    return replace(
        splits,
        selection=Split("selection", len(one), own.take(one)),
        test=Split("test", len(other), own.take(other)),
    )


def _data(row: Row, options: argparse.Namespace) -> tuple[str | None, str | None]:
    if row.dataset == "cifar10":
        return options.train, options.held_out
    return options.train_cifar100, options.held_out_cifar100


def _option(row: Row) -> str:
    return "--held-out" if row.dataset == "cifar10" else "--held-out-cifar100"
