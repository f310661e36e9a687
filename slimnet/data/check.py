"""Try network and data on one another before any long work starts."""

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from slimnet.data.batches import first_batch, labels_of, single_images
from slimnet.data.source import OF_OWN_TASK, kind_of
from slimnet.errors import InputError
from slimnet.load import first_line
from slimnet.records import Batches, Split, Splits

MIN_LOGITS = 32  # a guess: so many logits that are all from 0 to 1 tell no classes apart
CHECK_PREPROCESSING = "check the weights and the preprocessing (--scale, --mean, --std)"


def check_pair(model: nn.Module, splits: Splits) -> Tensor:
    """Return two calibration inputs (2, ...) that the model accepts; the model is not changed.

    Raises:
        InputError: a split is empty, the model fails on the inputs, does not give finite scores
            (N, classes) or logits (N,) or (N, 1), gives probabilities in their place, or has
            another number of outputs than the data have classes.
    """
    example, output = check_outputs(model, splits.calibration)
    classes = class_scores(output).shape[1]
    logit = output.shape[1:] in ((), (1,))
    has = "one output, the logit of class 1 against class 0," if logit else f"{classes} outputs"
    if splits.classes is not None and splits.classes != classes:
        raise InputError(
            f"the network has {has} but the data have {splits.classes} "
            "classes; give the data that it was trained for"
        )
    for split in splits.all:
        first_batch(split.batches, split.name)
        _require_labels_of_outputs(split, classes, has, f"; {OF_OWN_TASK}" if logit else "")
    if logit:
        _require_logits(model, splits.calibration)
    return example


def class_scores(output: Tensor) -> Tensor:
    """Return the scores (N, classes) of a network's output, which may be of one logit each.

    Logits (N,) or (N, 1), trained with binary cross-entropy, are those of class 1 against class 0.
    Their scores are 0 and the logit: the cross-entropy of these is the binary one, and class 1 has
    the higher score where the logit is above 0.
    """
    column = output[:, None] if output.ndim == 1 else output
    return functional.pad(column, (1, 0)) if column.shape[1] == 1 else column


def check_outputs(model: nn.Module, split: Split) -> tuple[Tensor, Tensor]:
    """Return two inputs of a split and the model's output for them; the model is not changed.

    The output is scores (2, classes), or logits (2,) or (2, 1).

    Raises:
        InputError: the model fails on the inputs, or does not give finite scores.
    """
    example = _first_inputs(split.batches, split.name, 2)
    shape = tuple(example.shape)
    try:
        with torch.no_grad():
            output = model(example)
    except Exception as error:  # a network's own code may raise anything
        hint = "check the channels and the size (--size N) that it was trained on"
        if example.ndim != 4:
            hint = "check the shape and the type that it was trained on"
        raise InputError(
            f"the network fails on {kind_of(example[0])} of the shape {shape}: "
            f"{first_line(error)}; {hint}"
        ) from error
    return example, _require_scores(output, shape)


def _require_labels_of_outputs(split: Split, classes: int, has: str, hint: str) -> None:
    labels = labels_of(split.batches)
    if labels.dtype != torch.int64:
        raise InputError(f"the labels of the {split.name} split are int64; got {labels.dtype}")
    for label in (int(labels.min()), int(labels.max())):
        if not 0 <= label < classes:
            raise InputError(
                f"the {split.name} split holds the label {label}, but the network has "
                f"{has}: labels go from 0 to {classes - 1}{hint}"
            )


def _require_logits(model: nn.Module, split: Split) -> None:
    """Refuse a network of one output that is a probability: slimnet would take all for class 1.

    Raises:
        InputError: no output of the first batch, if that is large, is below 0 or above 1.
    """
    inputs, _ = first_batch(split.batches, split.name)
    if len(inputs) < MIN_LOGITS:
        return
    with torch.no_grad():
        outputs = model(inputs)
    if bool(((outputs >= 0) & (outputs <= 1)).all()):
        raise InputError(
            "a network of one output gives the logit of class 1, above 0 for class 1 and below "
            f"for class 0; this one gives 0 to 1 on all of {len(inputs)} inputs, as behind a "
            "sigmoid: take the sigmoid away, or say what the network is for with --task"
        )


def _first_inputs(batches: Batches, name: str, count: int) -> Tensor:
    found: list[Tensor] = []
    for inputs, _ in batches:
        found.append(inputs[:count])
        if sum(map(len, found)) >= count:
            return torch.cat(found)[:count].clone()
    raise InputError(
        f"the {name} split needs {count} inputs or more, which the network is tried on; "
        f"got {sum(map(len, found))}"
    )


def _require_scores(output: Any, shape: tuple[int, ...]) -> Tensor:
    if not isinstance(output, Tensor):
        raise InputError(
            f"the network must give one tensor of scores (N, classes); got a "
            f"{type(output).__name__}: wrap it so that it returns the scores alone, or give --task"
        )
    if output.ndim not in (1, 2) or output.shape[0] != shape[0] or not output.numel():
        raise InputError(
            f"the network must give scores (N, classes); got {tuple(output.shape)} for inputs of "
            f"{shape}: for anything but one-label classification give --task"
        )
    if not bool(output.isfinite().all()):
        raise InputError(
            f"the network gives NaN or infinite scores on the first inputs; {CHECK_PREPROCESSING}"
        )
    return output


def with_answers(model: nn.Module, splits: Splits) -> Splits:
    """Return the splits with the model's top-1 classes as labels; nothing given is changed.

    The accuracy of another network on them is its agreement with the model.

    Raises:
        InputError: the model fails on the inputs, or answers the same class for all of a split
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
            answers.append(class_scores(scores).argmax(1))
    return replace(split, batches=batches.with_labels(torch.cat(answers)))


def _require_several_classes(split: Split) -> None:
    labels = labels_of(split.batches)
    if bool((labels == labels[0]).all()):
        raise InputError(
            f"without labels a network is evaluated by how its answers differ, but this one "
            f"answers class {int(labels[0])} for all {split.images} of the {split.name} "
            "split; most often the preprocessing is wrong: see --scale, --mean, --std, --channels, "
            "--size"
        )
