"""Try network and data on one another before any long work starts."""

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from slimnet.data.batches import first_batch, labels_of, single_images
from slimnet.errors import InputError
from slimnet.load import first_line
from slimnet.records import Batches, Split, Splits

CHECK_PREPROCESSING = "check the weights and the preprocessing (--scale, --mean, --std)"


def check_pair(model: nn.Module, splits: Splits) -> Tensor:
    """Return two calibration inputs (2, ...) that the model accepts; the model is not changed.

    Raises:
        InputError: a split is empty, the model fails on the images, does not give finite
            (N, classes) scores, or has another number of outputs than the data have classes.
    """
    example, scores = check_outputs(model, splits.calibration)
    if splits.classes is not None and splits.classes != scores.shape[1]:
        raise InputError(
            f"the network has {scores.shape[1]} outputs but the data have {splits.classes} "
            "classes; give the data that it was trained for"
        )
    for split in splits.all:
        first_batch(split.batches, split.name)
        _require_labels_of_outputs(split, scores.shape[1])
    return example


def check_outputs(model: nn.Module, split: Split) -> tuple[Tensor, Tensor]:
    """Return two inputs of a split and their scores (2, classes); the model is not changed.

    Raises:
        InputError: the model fails on the images, or does not give finite (N, classes) scores.
    """
    example = _first_images(split.batches, split.name, 2)
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


def _first_images(batches: Batches, name: str, count: int) -> Tensor:
    found: list[Tensor] = []
    for images, _ in batches:
        found.append(images[:count])
        if sum(map(len, found)) >= count:
            return torch.cat(found)[:count].clone()
    raise InputError(
        f"the {name} split needs {count} images or more, which the network is tried on; "
        f"got {sum(map(len, found))}"
    )


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
            f"the network gives NaN or infinite scores on the first images; {CHECK_PREPROCESSING}"
        )
    return output


def with_answers(model: nn.Module, splits: Splits) -> Splits:
    """Return the splits with the model's top-1 classes as labels; nothing given is changed.

    The accuracy of another network on them is its agreement with the model.

    Raises:
        InputError: the model fails on the images, or answers the same class for all of a split
            that a drop is measured on.
    """
    check_outputs(model, splits.calibration)
    answered = splits.mapped(lambda split: _answered(model, split))
    for split in answered.evaluated:
        _require_several_classes(split)
    where = f"{splits.description}; no labels: the original network's own answers stand for them"
    return replace(answered, description=where, classes=None)


def _answered(model: nn.Module, split: Split) -> Split:
    answers = []
    batches = single_images(split.batches)
    with torch.no_grad():  # not inference_mode, whose tensors no training may use
        for inputs, _ in batches:
            scores = model(inputs)
            if not bool(scores.isfinite().all()):
                raise InputError(
                    f"the network gives NaN or infinite scores on the {split.name} split; "
                    f"{CHECK_PREPROCESSING}"
                )
            answers.append(scores.argmax(1))
    return replace(split, batches=batches.with_labels(torch.cat(answers)))


def _require_several_classes(split: Split) -> None:
    labels = labels_of(split.batches)
    if bool((labels == labels[0]).all()):
        raise InputError(
            f"without labels a network is evaluated by how its answers differ, but this one "
            f"answers class {int(labels[0])} for all {split.images} images of the {split.name} "
            "split; most often the preprocessing is wrong: see --scale, --mean, --std, --channels, "
            "--size"
        )
