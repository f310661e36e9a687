"""What the benchmarks share: the rows of the paper's Table III, their weights and their data.

Persand, Anderson and Gregg, "Composition of Saliency Metrics for Pruning with a Myopic Oracle",
2020. A row whose weights or data are not at hand raises MissingError, and is left out.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from slimnet import export, groups, load, measure
from slimnet.errors import InputError
from slimnet.records import Split, Splits
from slimnet.search import LayerTimer
from slimnet.search.layout import Layout, lay_out
from slimnet.settings import Settings

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
    """One row of Table III. ``papers_best`` is its best, in percent of convolution weights."""

    network: str
    dataset: str
    title: str
    papers_best: str = "–"

    @property
    def name(self) -> str:
        """What files and options call the row."""
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
    """What a row needs is not at hand; the message says what, and what to do."""


@dataclass(frozen=True)
class Subject:
    """The network of a row, and its data as one seed draws them. ``before`` is by split name."""

    model: nn.Module
    splits: Splits
    example: Tensor
    groups: Sequence[groups.Group]
    before: Mapping[str, measure.Quality]

    @property
    def units(self) -> int:
        """How many units could go, all groups together."""
        return sum(group.units for group in self.groups)

    @cached_property
    def _translated(self) -> export.Translated:
        return export.translate(self.model, self.example, Settings.opset)

    def layer_timer(self, settings: Settings) -> LayerTimer:
        """Return what times the layers of its slim networks, if the search asks for that."""
        return export.layer_timer(self._translated, settings)

    def drop_points(self, slim: nn.Module, split: Split) -> float:
        """Return the drop on a split, the plain estimate in percentage points."""
        after = measure.measure_quality(slim, split)
        return measure.paired_drop(self.before[split.name], after, 0.5).points

    def drops(self, slim: nn.Module) -> dict[str, float]:
        """Return the drops on selection and test images, as they go into a run."""
        judges = (self.splits.selection, self.splits.test)
        return {f"{s.name}_drop_points": round(self.drop_points(slim, s), 3) for s in judges}

    def oracle_split(self, most: int) -> Split:
        """Return the calibration images that saliency and oracle see: every n-th, so many at most.

        They are in memory, channels last, in batches of 128.
        """
        return lay_out(self.splits.calibration, most, Layout(torch.channels_last, 128))

    def images(self, most_for_oracle: int) -> dict[str, int]:
        """Return how many images each split holds, and how many of them the oracle sees."""
        parts = (self.splits.calibration, self.splits.selection, self.splits.test)
        counts = {split.name: split.images for split in parts}
        return {**counts, "oracle": self.oracle_split(most_for_oracle).images}


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the options that say where weights and data are, and which rows and seeds to run."""
    parser.add_argument("--models", type=Path, help="folder of NETWORK.pt, NETWORK_cifar100.pt")
    forms = ".npz of images and labels, a folder, or torchvision:NAME@ROOT"
    parser.add_argument("--train", help=f"CIFAR-10 images for calibration: {forms}")
    parser.add_argument("--held-out", help=f"CIFAR-10 images for selection and test: {forms}")
    parser.add_argument("--train-cifar100", help="the same of CIFAR-100")
    parser.add_argument("--held-out-cifar100", help="the same of CIFAR-100")
    names = [row.name for row in ROWS]
    parser.add_argument("--rows", nargs="*", default=names, choices=names, metavar="ROW")
    parser.add_argument("--seeds", nargs="*", type=int, default=[0, 1, 2], metavar="SEED")
    count = Settings.oracle_images
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
    """Return the dials by which pixels become the inputs that the network was trained on."""
    return {
        "channels": "bgr",
        "scale": SCALE,
        "mean": None if network == "lenet5" else MEAN,
    }


def settings_for(row: Row, options: argparse.Namespace, seed: int, **dials: Any) -> Settings:
    """Return the settings of a run: 5 points by the plain estimate, as the paper judges."""
    train, _ = _data(row, options)
    return Settings(
        arch=f"{ARCHITECTURES}:{row.network}",
        arch_arg=(f"num_classes={CLASSES[row.dataset]}",),
        calibration_data=train,
        max_drop=BUDGET_POINTS,
        confidence=0.5,
        seed=seed,
        **preprocessing(row.network),
        **{"oracle_images": options.oracle_images, **dials},
    )


def load_subject(row: Row, options: argparse.Namespace, seed: int) -> Subject:
    """Load the network of a row and draw its splits.

    Raises:
        MissingError: weights or data are not there, or cannot be used.
    """
    _, held_out = _data(row, options)
    if options.models is None or not (weights := options.models / f"{row.name}.pt").exists():
        raise MissingError(f"no {row.name}.pt in --models; benchmarks/train.py can train one")
    if held_out is None:
        raise MissingError(f"no {DATASET_TITLES[row.dataset]} images: give {_option(row)}")
    settings = settings_for(row, options, seed)
    try:
        model = load.load_model(weights, settings).model
        splits = load.load_splits(held_out, settings)
        example = load.check_pair(model, splits)
        found, _ = groups.find_groups(model, example, seed=seed)
        judges = (splits.selection, splits.test)
        before = {s.name: measure.measure_quality(model, s) for s in judges}
        measure.require_better_than_chance(before["selection"], splits.selection)
    except InputError as error:
        raise MissingError(str(error)) from error
    return Subject(model, splits, example, found, before)


def _data(row: Row, options: argparse.Namespace) -> tuple[str | None, str | None]:
    if row.dataset == "cifar10":
        return options.train, options.held_out
    return options.train_cifar100, options.held_out_cifar100


def _option(row: Row) -> str:
    return "--held-out" if row.dataset == "cifar10" else "--held-out-cifar100"
