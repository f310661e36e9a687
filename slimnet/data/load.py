"""Load the data, and divide it into calibration, selection, confirmation and test."""

from dataclasses import replace
from pathlib import Path
from typing import Any

from torch import nn
from torch.utils.data import DataLoader, Dataset

from slimnet.data.arrays import ARRAY_EXTENSIONS, open_arrays
from slimnet.data.check import with_answers
from slimnet.data.datasets import is_dataset, item_splits, open_dataset
from slimnet.data.images import open_folder, open_torchvision
from slimnet.data.source import GIVEN_NAMES, Parts, Source
from slimnet.data.splits import as_given, divide
from slimnet.errors import InputError
from slimnet.load import first_line, folders_on_path, import_callable
from slimnet.options import DataOptions
from slimnet.records import Splits

Data = str | Path | Dataset[Any] | tuple[Dataset[Any], Dataset[Any], Dataset[Any]] | Splits
FORMS = (
    "an image folder, a .npz, .safetensors or .pt file of images and labels, "
    "torchvision:NAME@ROOT, file.py:callable, or a data set"
)


def load_splits(
    data: Data,
    options: DataOptions,
    network: nn.Module | None = None,
    *,
    by_image: bool = True,
    confirm: bool = False,
) -> Splits:
    """Return the splits of some data, which is not changed.

    ``data`` is an image folder, a .npz, .safetensors or .pt file with ``images`` and ``labels``,
    ``torchvision:NAME@ROOT``, ``file.py:callable``, a map-style data set, three of these
    (calibration, selection, test), or ready splits. Calibration comes from the training part
    where there is one; all other splits only ever come from images held out of it. There are
    confirmation images only to ``confirm``, and test images only where the third of three data sets
    or the option ``test_data`` gives them. With
    ``labels="none"`` the network's own answers are the labels. Where it takes grey images only,
    colour images become grey. Unless the task is one of labelled images (``by_image``), live data
    sets may have items of any form, collated as torch does it. Each split caches images up to
    ``options.memory_mib``.

    Raises:
        InputError: the data cannot be read, are too few for their splits, or the network cannot
            label them.
    """
    splits = _read_splits(data, options, network, by_image, confirm)
    if network is not None and options.labels == "none":
        return with_answers(network, splits)
    return splits


def _read_splits(
    data: Data, options: DataOptions, network: nn.Module | None, by_image: bool, confirm: bool
) -> Splits:
    name = str(data) if isinstance(data, (str, Path)) else type(data).__name__
    given: Any = _called(data)
    three = isinstance(given, (tuple, list)) and len(given) == 3
    if _is_several(given) and not three:
        raise InputError(
            f"data are one data set, or three: calibration, selection, test; got {len(given)}"
        )
    if (three or isinstance(given, Splits)) and options.calibration_data is not None:
        raise InputError(
            "the data already come with a calibration split; leave calibration_data out"
        )
    if (three or isinstance(given, Splits)) and options.test_data is not None:
        raise InputError("the data already come with a test split; leave test_data out")
    if isinstance(given, Splits):
        if confirm and given.confirmation is None:
            raise InputError(
                "a budget with confidence above 0.5 is confirmed on images that decided nothing, "
                "and these Splits have no confirmation split: add one, or take confidence=0.5"
            )
        return _named_by_purpose(given)
    if not by_image and (three or is_dataset(given)):
        datasets = given if three else [*_items("calibration_data", options), given]
        test = None if three else next(iter(_items("test_data", options)), None)
        return item_splits(datasets, name, options, confirm=confirm, test=test)
    if three:
        labelled = options.labels == "given"
        sources = [open_dataset(part, f"{name} ({which})", labelled)
                   for part, which in zip(given, GIVEN_NAMES, strict=True)]  # fmt: skip
        return as_given(sources, options, network, confirm=confirm)
    held_out = _open(given, name, options)
    parts = Parts(
        held_out.held_out,
        _calibration_source(held_out, name, options),
        _test_source(name, options),
    )
    return divide(parts, options, network, confirm=confirm)


def _named_by_purpose(splits: Splits) -> Splits:
    """Return the splits with the names that measurements and reports know their parts by."""
    names = ("calibration", "selection", "confirmation", "test")
    parts = {name: getattr(splits, name) for name in names}
    wrong = {name: part for name, part in parts.items() if part and part.name != name}
    if not wrong:
        return splits
    return replace(splits, **{name: replace(part, name=name) for name, part in wrong.items()})


def _items(option: str, options: DataOptions) -> list[Any]:
    """Return the data set that an option names, for a task of the user's own; [] without it."""
    spec = getattr(options, option)
    if spec is None:
        return []
    other = _called(spec)
    if not is_dataset(other):
        raise InputError(
            f"{option} for a data set is file.py:callable that makes one too; got {spec!r}"
        )
    return [other]


def _calibration_source(parts: Parts, name: str, options: DataOptions) -> Source | None:
    spec = options.calibration_data
    if spec is None:
        return parts.train
    other = _open(_called(spec), spec, options)
    if other.train is None and parts.train is None and _same_place(spec, name):
        raise InputError(
            f"calibration_data and data are both {spec}; give images held out of training as data"
        )
    return other.train or other.held_out


def _test_source(name: str, options: DataOptions) -> Source | None:
    spec = options.test_data
    if spec is None:
        return None
    if _same_place(spec, name):
        raise InputError(
            f"test_data and data are both {spec}; give images as test_data that decide nothing"
        )
    return _open(_called(spec), spec, options).held_out


def _same_place(one: str, other: str) -> bool:
    return one == other or Path(one).resolve() == Path(other).resolve()


def _called(data: Any) -> Any:
    """Return what ``file.py:callable`` makes, or anything else as it is."""
    if not isinstance(data, str) or ":" not in data or data.startswith("torchvision:"):
        return data
    if Path(data).exists():
        return data
    make = import_callable(data)
    try:
        with folders_on_path(Path.cwd()):
            return make()
    except Exception as error:  # the user's code may raise anything
        raise InputError(f"{data} failed: {first_line(error)}") from error


def _is_several(data: Any) -> bool:
    parts = data if isinstance(data, (tuple, list)) else ()
    return bool(parts) and all(isinstance(part, Dataset) for part in parts)


def _open(data: Any, name: str, options: DataOptions) -> Parts:
    labelled = options.labels == "given"
    if isinstance(data, str) and data.startswith("torchvision:"):
        return open_torchvision(data.removeprefix("torchvision:"))
    if isinstance(data, (str, Path)):
        return _open_path(Path(data).expanduser(), labelled)
    if is_dataset(data):
        return Parts(open_dataset(data, name, labelled))
    hint = ": give its data set (loader.dataset)" if isinstance(data, DataLoader) else ""
    raise InputError(f"data are {FORMS}; got a {type(data).__name__}{hint}")


def _open_path(path: Path, labelled: bool) -> Parts:
    if path.is_dir():
        return open_folder(path, labelled)
    if path.exists() and path.suffix not in ARRAY_EXTENSIONS:
        raise InputError(f"data are {FORMS}; got the file {path}")
    return Parts(open_arrays(path, labelled))
