"""Try network and data on one another before any long work starts."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from slimnet.errors import InputError
from slimnet.load.batches import labels_of
from slimnet.load.importing import first_line
from slimnet.records import Batches, Split, Splits


def check_pair(model: nn.Module, splits: Splits) -> Tensor:
    """Return two calibration inputs (2, ...) that the model accepts; the model is not changed.

    Raises:
        InputError: the model fails on the images, does not give finite (N, classes) scores, or
            has another number of outputs than the data have classes.
    """
    example, scores = check_outputs(model, splits.calibration)
    if splits.classes is not None and splits.classes != scores.shape[1]:
        raise InputError(
            f"the network has {scores.shape[1]} outputs but the data have {splits.classes} "
            "classes; give the data that it was trained for"
        )
    for split in (splits.calibration, splits.selection, splits.test):
        _require_labels_of_outputs(split, scores.shape[1])
    return example


def check_outputs(model: nn.Module, split: Split) -> tuple[Tensor, Tensor]:
    """Return two inputs of a split and their scores (2, classes); the model is not changed.

    Raises:
        InputError: the model fails on the images, or does not give finite (N, classes) scores.
    """
    example = _first_images(split.batches, 2)
    shape = tuple(example.shape)
    try:
        with torch.no_grad():
            output = model(example)
    except Exception as error:  # a network's own code may raise anything
        raise InputError(
            f"the network fails on images of the shape {shape}: {first_line(error)}; check the "
            "channels and the size (--size N) that it was trained on"
        ) from error
    return example, _require_scores(output, shape)


def _require_labels_of_outputs(split: Split, outputs: int) -> None:
    labels = labels_of(split.batches)
    if labels.dtype != torch.int64:
        raise InputError(f"the labels of the {split.name} split are int64; got {labels.dtype}")
    for label in (int(labels.min()), int(labels.max())):
        if not 0 <= label < outputs:
            raise InputError(
                f"the {split.name} split holds the label {label}, but the network has "
                f"{outputs} outputs: labels go from 0 to {outputs - 1}"
            )


def _first_images(batches: Batches, count: int) -> Tensor:
    found: list[Tensor] = []
    for images, _ in batches:
        found.append(images[:count])
        if sum(map(len, found)) >= count:
            break
    if not found:
        raise InputError("the calibration split is empty; give it at least 2 images")
    return torch.cat(found)[:count].clone()


def _require_scores(output: Any, shape: tuple[int, ...]) -> Tensor:
    if not isinstance(output, Tensor):
        raise InputError(
            f"the network must give one tensor of scores (N, classes); got a "
            f"{type(output).__name__}: wrap it so that it returns the scores alone, or give --task"
        )
    if output.ndim != 2 or output.shape[0] != shape[0]:
        raise InputError(
            f"the network must give scores (N, classes); got {tuple(output.shape)} for images of "
            f"{shape}: for anything but one-label classification give --task"
        )
    if not bool(output.isfinite().all()):
        raise InputError(
            "the network gives NaN or infinite scores on the first images; check the "
            "preprocessing (--scale, --mean, --std) and the weights"
        )
    return output
