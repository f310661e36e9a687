"""Data without labels: what the original network answers stands for them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import torch
from torch import Tensor, nn

from slimnet.errors import InputError
from slimnet.load.check import check_outputs
from slimnet.records import Batch, Batches, Split, Splits


class AnsweredBatches:
    """Batches with other labels; implements ``records.Batches``. ``answers`` is one a batch."""

    def __init__(self, batches: Batches, answers: tuple[Tensor, ...]) -> None:
        self.labels = torch.cat(answers)
        self._batches = batches
        self._answers = answers

    def __iter__(self) -> Iterator[Batch]:
        """Give (inputs (N, ...) float32, answers (N,) int64) in the order of the batches."""
        for (inputs, _), answers in zip(self._batches, self._answers, strict=True):
            yield inputs, answers


def with_answers(model: nn.Module, splits: Splits) -> Splits:
    """Return the splits with the model's top-1 as labels; neither the model nor they change.

    The accuracy of another network on them is its agreement with the model.

    Raises:
        InputError: the model fails on the images, or answers the same class for all of a split
            that a drop is measured on.
    """
    check_outputs(model, splits.calibration)
    calibration, selection, test = (
        _answered(model, split) for split in (splits.calibration, splits.selection, splits.test)
    )
    for split in (selection, test):
        _require_differing(split)
    where = f"{splits.description}; no labels: the original network's own answers stand for them"
    return replace(
        splits, calibration=calibration, selection=selection, test=test,
        description=where, classes=None,
    )  # fmt: skip


def _answered(model: nn.Module, split: Split) -> Split:
    answers = []
    with torch.no_grad():  # no inference_mode: what it makes may not be trained with
        for inputs, _ in split.batches:
            scores = model(inputs)
            if not bool(scores.isfinite().all()):
                raise InputError(
                    f"the network gives NaN or infinite scores on the {split.name} split; check "
                    "the weights and the preprocessing (--scale, --mean, --std)"
                )
            answers.append(scores.argmax(1))
    return replace(split, batches=AnsweredBatches(split.batches, tuple(answers)))


def _require_differing(split: Split) -> None:
    assert isinstance(split.batches, AnsweredBatches)
    labels = split.batches.labels
    if bool((labels == labels[0]).all()):
        raise InputError(
            f"without labels a network is judged by how its answers differ, but this one answers "
            f"class {int(labels[0])} for all {split.images} images of the {split.name} split; most "
            "often the preprocessing is wrong: see --scale, --mean, --std, --channels, --size"
        )
