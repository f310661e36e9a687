"""Make the three splits: which images go where, and what is said about it."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from slimnet.errors import InputError
from slimnet.load.batches import ImageBatches
from slimnet.load.grey import with_grey_if_taken
from slimnet.load.preprocess import Preprocessor, build_preprocessor
from slimnet.load.source import Parts, Source
from slimnet.load.splits import stratified_split
from slimnet.records import Split, Splits
from slimnet.settings import Settings

NAMES = ("calibration", "selection", "test")
LARGEST_NORMALISED = 16.0
LEAST_IMAGES = 10
LEAST_PER_CLASS = 2

Part = tuple[Source, Tensor]


def divide(parts: Parts, settings: Settings, network: nn.Module | None = None) -> Splits:
    """Return splits that share no image, each class in proportion in all of them.

    With a training part: calibration is a sample of it, selection and test are halves of the
    rest. Without: calibration is a sample of at most a third, selection and test halve the rest.
    Colour images become grey where the network takes only these.

    Raises:
        InputError: too few images.
    """
    held_out, seed = parts.held_out, settings.seed
    source, rest = held_out, torch.arange(len(held_out))
    if parts.train is not None:
        source = parts.train
        _require_same_classes(source, held_out)
        count = min(settings.calibration_images, len(source))
        calibration, _ = stratified_split(source.labels, count, seed)
    else:
        count = min(settings.calibration_images, len(held_out) // 3)
        calibration, rest = stratified_split(held_out.labels, count, seed)
    one, other = stratified_split(held_out.labels[rest], len(rest) // 2, seed)
    chosen = [(source, calibration), (held_out, rest[one]), (held_out, rest[other])]
    where = (
        f"calibration: {len(calibration)} of the {len(source)} images of {source.name}; "
        f"selection and test: {len(one)} and {len(other)} images, the halves of "
        + (f"the other {len(rest)}" if parts.train is None else f"{held_out.name}")
        + f"; {'at random' if settings.labels == 'none' else 'every class in proportion'}"
        + f", seed {seed}"
    )
    return _make(chosen, where, settings, network)


def as_given(
    sources: Sequence[Source], settings: Settings, network: nn.Module | None = None
) -> Splits:
    """Return three sources as the calibration, selection and test splits, undivided.

    Raises:
        InputError: too few images.
    """
    chosen = [(source, torch.arange(len(source))) for source in sources]
    counts = ", ".join(f"{len(s)} for {n}" for s, n in zip(sources, NAMES, strict=True))
    where = f"three data sets as they were given: {counts} images"
    return _make(chosen, where, settings, network)


def _make(
    parts: Sequence[Part], description: str, settings: Settings, network: nn.Module | None
) -> Splits:
    for name, (source, indices) in zip(NAMES, parts, strict=True):
        _require_enough(name, source, indices)
    sample = parts[0][0].read(0)
    fitting = with_grey_if_taken(settings, network, sample)
    if fitting != settings:
        description += "; colours made grey, since the network takes one channel"
    preprocessor = build_preprocessor(fitting, sample)
    if _looks_unscaled(sample) and settings.scale is None and settings.preprocess is None:
        description += (
            f"; pixels are decimal numbers as large as {sample.max():g}, taken as they are "
            "(--scale 0.00392157 makes 0 to 255 into 0 to 1)"
        )
    shape = _common_shape(parts, preprocessor, sample.dtype)
    calibration, selection, test = (
        Split(
            name,
            len(indices),
            ImageBatches(source, indices, preprocessor, shape, settings.batch_size),
        )
        for name, (source, indices) in zip(NAMES, parts, strict=True)
    )
    names = parts[1][0].class_names
    classes = None if names is None else len(names)
    return Splits(calibration, selection, test, description, classes, preprocessor.describe())


def _looks_unscaled(sample: Tensor) -> bool:
    """Tell whether decimal numbers look like 0 to 255, not like 0 to 1 or normalised."""
    return sample.is_floating_point() and float(sample.max()) > LARGEST_NORMALISED


def _require_enough(name: str, source: Source, indices: Tensor) -> None:
    # a sample for calibration need not hold every class of a large data set
    classes = 0 if name == "calibration" else len(set(source.labels[indices].tolist()))
    least = max(LEAST_IMAGES, LEAST_PER_CLASS * classes)
    if len(indices) < least:
        raise InputError(
            f"the {name} split needs {least} images or more ({LEAST_IMAGES}, and "
            f"{LEAST_PER_CLASS} a class in selection and test); {source.name} with {len(source)} "
            f"images leaves {len(indices)} for it: give more images"
        )


def _require_same_classes(train: Source, held_out: Source) -> None:
    one, other = train.class_names, held_out.class_names
    if one is not None and other is not None and one != other:
        raise InputError(
            f"{train.name} and {held_out.name} must have the same classes; "
            f"only in one of them: {', '.join(sorted(set(one) ^ set(other))[:5])}"
        )


def _common_shape(
    parts: Sequence[Part], preprocessor: Preprocessor, dtype: torch.dtype
) -> tuple[int, ...]:
    """Return the (C, H, W) of every input, as the first image of the first part has it."""
    shape = tuple(preprocessor(parts[0][0].read(0)).shape)
    for source, _ in parts[1:]:
        raw = source.read(0)
        if raw.dtype != dtype:
            raise InputError(
                f"{parts[0][0].name} holds {dtype} images and {source.name} {raw.dtype}; "
                "give both with the same pixel type"
            )
        if tuple(preprocessor(raw).shape) != shape:
            raise InputError(
                f"{parts[0][0].name} and {source.name} give inputs of {shape} and "
                f"{tuple(preprocessor(raw).shape)}; give --size N to bring all to N x N pixels"
            )
    return shape
