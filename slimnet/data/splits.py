"""Divide the data into calibration, selection and confirmation, and say how."""

from collections import Counter
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from slimnet.data.batches import IndexedBatches, Items
from slimnet.data.preprocess import Preprocessor, build_preprocessor, with_grey_if_taken
from slimnet.data.source import GIVEN_NAMES, Parts, Source, require_images
from slimnet.errors import InputError
from slimnet.options import DataOptions
from slimnet.records import Split, Splits


def stratified_split(labels: Tensor, count: int, seed: int) -> tuple[Tensor, Tensor]:
    """Return the indices of ``count`` images and of all others, both sorted, with no overlap.

    ``labels`` is (images,) int64. Every class gives its share of ``count``, rounded by largest
    remainder, ties to the lower class. The same on every platform for the same seed.
    """
    generator = torch.Generator().manual_seed(seed)
    chosen = []
    sizes = Counter(labels.tolist())
    classes = sorted(sizes)
    shares = _shares([sizes[label] for label in classes], count)
    for label, share in zip(classes, shares, strict=True):
        members = (labels == label).nonzero().flatten()
        order = torch.randperm(len(members), generator=generator)
        chosen.append(members[order[:share]])
    taken = torch.zeros(len(labels), dtype=torch.bool)
    taken[torch.cat(chosen)] = True
    return taken.nonzero().flatten(), (~taken).nonzero().flatten()


def _shares(sizes: list[int], count: int) -> list[int]:
    """Return how many of each class make ``count`` together; in whole numbers, so exactly."""
    total = sum(sizes)
    shares = [size * count // total for size in sizes]
    remainders = [size * count % total for size in sizes]
    by_remainder = sorted(range(len(sizes)), key=lambda index: (-remainders[index], index))
    for index in by_remainder[: count - sum(shares)]:
        shares[index] += 1
    return shares


# the network is tried on two images
MIN_CALIBRATION = 2
# with fewer than 10 images one of them is more than 10 points of accuracy
MIN_HELD_OUT = 10
# of the images held out, what the search decides by: as few as guide it well, because all others
# count in the confirmation. In the simulation of benchmarks/guarantee.py, 10 to 50 % of 846 images
# ship mean drops of 3.1 to 2.7 points, of 2,000 images 3.6 to 3.4; a search also needs some for
# its small decisions
SELECTION_SHARE = 0.25
MAX_SELECTION = 1000
# fewer images than this are noted, not refused: they rank channels badly, or say little of a class
FEW_CALIBRATION = 10
FEW_PER_CLASS = 2
# normalised pixels stay far below this; a guess between them and 255
MAX_NORMALISED = 16.0

Part = tuple[Source, Tensor]


def selection_count(images: int) -> int:
    """Return how many of the images held out are for selection, if the others confirm."""
    share = max(MIN_HELD_OUT, round(SELECTION_SHARE * images))
    return min(share, images // 2, MAX_SELECTION)


def divide(
    parts: Parts,
    options: DataOptions,
    network: nn.Module | None = None,
    *,
    confirm: bool,
) -> Splits:
    """Return splits that share no image, each class in proportion in all of them.

    With a training part, calibration is a sample of it; without one, of at most a third of the
    images held out. To ``confirm``, a quarter of the rest is for selection, at most 1,000 images,
    and all others are for confirmation; else all are for selection. Colour images become grey where
    the network takes one channel only. Each split caches images up to ``options.memory_mib``.

    Raises:
        InputError: too few images.
    """
    held_out, seed = parts.held_out, options.seed
    source, rest = held_out, torch.arange(len(held_out))
    if parts.train is not None:
        source = parts.train
        _require_same_classes(source, held_out)
        count = min(options.calibration_images, len(source))
        calibration, _ = stratified_split(source.labels, count, seed)
    else:
        count = min(options.calibration_images, len(held_out) // 3)
        calibration, rest = stratified_split(held_out.labels, count, seed)
    chosen = {"calibration": (source, calibration)}
    chosen |= _held_out_parts(held_out, rest, seed, confirm)
    where = (
        f"calibration: {len(calibration)} of the {len(source)} {source.kind} of {source.name}; "
        f"{_counts(chosen)} {held_out.kind}, "
        + (f"the other {len(rest)}" if parts.train is None else f"of {held_out.name}")
        + f"; {'at random' if options.labels == 'none' else 'every class in proportion'}"
        + f", seed {seed}"
    )
    if parts.test is not None:
        _require_same_classes(held_out, parts.test)
        chosen["test"] = (parts.test, torch.arange(len(parts.test)))
        where += f"; test: the {len(parts.test)} images of {parts.test.name}"
    return _make(chosen, where, options, network)


def as_given(
    sources: Sequence[Source],
    options: DataOptions,
    network: nn.Module | None = None,
    *,
    confirm: bool,
) -> Splits:
    """Return three sources as the calibration, selection and test splits; see ``divide``.

    To ``confirm``, the second is divided into selection and confirmation.

    Raises:
        InputError: too few images.
    """
    source, held_out, test = sources
    rest = torch.arange(len(held_out))
    chosen = {"calibration": (source, torch.arange(len(source)))}
    chosen |= _held_out_parts(held_out, rest, options.seed, confirm)
    chosen["test"] = (test, torch.arange(len(test)))
    counts = ", ".join(f"{len(s)} for {n}" for s, n in zip(sources, GIVEN_NAMES, strict=True))
    where = f"three data sets as they were given: {counts} {held_out.kind}"
    if confirm:
        where += f"; of the second {_counts(chosen)} {held_out.kind}, seed {options.seed}"
    return _make(chosen, where, options, network)


def _held_out_parts(held_out: Source, rest: Tensor, seed: int, confirm: bool) -> dict[str, Part]:
    """Return selection, and confirmation if there is one, from these images of a source."""
    if not confirm:
        return {"selection": (held_out, rest)}
    one, other = stratified_split(held_out.labels[rest], selection_count(len(rest)), seed)
    return {"selection": (held_out, rest[one]), "confirmation": (held_out, rest[other])}


def _counts(parts: Mapping[str, Part]) -> str:
    found = {name: len(indices) for name, (_, indices) in parts.items()}
    names = [name for name in ("selection", "confirmation") if name in found]
    return f"{' and '.join(names)}: {' and '.join(str(found[name]) for name in names)}"


def _make(
    parts: Mapping[str, Part],
    description: str,
    options: DataOptions,
    network: nn.Module | None,
) -> Splits:
    for name, (source, indices) in parts.items():
        fewest = MIN_CALIBRATION if name == "calibration" else MIN_HELD_OUT
        where = f"the {len(source)} of {source.name}"
        require_images(name, len(indices), fewest, where, source.kind)
    sample = parts["calibration"][0].read(0)
    fitting = with_grey_if_taken(options, network, sample)
    preprocessor = build_preprocessor(fitting, sample)
    shape = _common_shape([*parts.values()], preprocessor, sample.dtype)
    made = {
        name: Split(
            name,
            len(indices),
            IndexedBatches(
                _inputs(source, preprocessor, shape, options.memory_bytes),
                torch.split(indices, options.batch_size),
                source.labels,
                by_image=True,
            ),
        )
        for name, (source, indices) in parts.items()
    }
    notes = [*_notes_on_counts(parts), *_notes_on_pixels(sample, options, fitting)]
    names = parts["selection"][0].class_names
    return Splits(
        made["calibration"],
        made["selection"],
        made.get("test"),
        "; ".join([description, *notes]),
        None if names is None else len(names),
        preprocessor.describe(),
        made.get("confirmation"),
    )


def _inputs(
    source: Source, preprocessor: Preprocessor, shape: tuple[int, ...], memory_bytes: int
) -> Items:
    """Return the network's inputs, (C, ...) float32 each, of a source by index."""

    def read(index: int) -> Tensor:
        found = preprocessor(source.read(index))
        if tuple(found.shape) != shape:
            raise InputError(
                f"{source.name}: {source.kind} differ in shape, {tuple(found.shape)} after "
                f"{shape}; {_same_size(source)}"
            )
        return found

    return Items(read, lambda inputs, _: torch.stack(inputs), memory_bytes)


def _same_size(source: Source) -> str:
    if source.kind == "images":
        return "give --size N to resize and crop all to N x N pixels"
    return "give all the same shape"


def _notes_on_counts(parts: Mapping[str, Part]) -> list[str]:
    """Return what the report must say of few images, which are not refused."""
    notes = []
    calibration, kind = len(parts["calibration"][1]), parts["calibration"][0].kind
    if calibration < FEW_CALIBRATION:
        notes.append(f"{calibration} calibration {kind} rank channels badly, so that less can go")
    which = "confirmation" if "confirmation" in parts else "selection"
    source, indices = parts[which]
    sizes = Counter(source.labels[indices].tolist())
    few = sum(size < FEW_PER_CLASS for size in sizes.values())
    if few:
        notes.append(
            f"{which} holds fewer than {FEW_PER_CLASS} {kind} of {few} of its {len(sizes)} "
            "classes: the drop is of all of them together and says nothing of a single class"
        )
    return notes


def _notes_on_pixels(sample: Tensor, options: DataOptions, fitting: DataOptions) -> list[str]:
    """Return what the report must say of colours made grey, and of pixels that look unscaled."""
    notes = []
    if fitting != options:
        notes.append("colours made grey, since the network takes one channel")
    decimal = sample.is_floating_point() and sample.ndim == 3
    unscaled = decimal and float(sample.max()) > MAX_NORMALISED
    if unscaled and options.scale is None and options.preprocess is None:
        notes.append(
            f"pixels are decimal numbers as large as {sample.max():g}, taken as they are "
            "(--scale 0.00392157 makes 0 to 255 into 0 to 1)"
        )
    return notes


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
    """Return the shape of every input, as the first of the first part has it."""
    shape = tuple(preprocessor(parts[0][0].read(0)).shape)
    for source, _ in parts[1:]:
        raw = source.read(0)
        if raw.dtype != dtype:
            raise InputError(
                f"{parts[0][0].name} holds {dtype} {source.kind} and {source.name} {raw.dtype}; "
                "give both with the same type"
            )
        if tuple(preprocessor(raw).shape) != shape:
            raise InputError(
                f"{parts[0][0].name} and {source.name} give inputs of {shape} and "
                f"{tuple(preprocessor(raw).shape)}; {_same_size(source)}"
            )
    return shape
