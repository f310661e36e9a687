"""Load the data, and divide it into calibration, selection and test."""

from pathlib import Path
from typing import Any

from torch import nn
from torch.utils.data import DataLoader, Dataset

from slimnet.data.arrays import ARRAY_EXTENSIONS, open_arrays
from slimnet.data.check import with_answers
from slimnet.data.datasets import is_dataset, item_splits, open_dataset
from slimnet.data.images import open_folder, open_torchvision
from slimnet.data.source import NAMES, Parts
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
) -> Splits:
    """Return the calibration, selection and test splits of some data, which is not changed.

    ``data`` is an image folder, a .npz, .safetensors or .pt file with ``images`` and ``labels``,
    ``torchvision:NAME@ROOT``, ``file.py:callable``, a map-style data set, three of these
    (calibration, selection, test), or ready splits. Calibration comes from the training part
    where there is one; selection and test only ever come from images held out of it. With
    ``labels="none"`` the network's own answers are the labels. Where it takes grey images only,
    colour images become grey. Unless the task is one of labelled images (``by_image``), live data
    sets may have items of any form, collated as torch does it. Each split caches images up to
    ``options.memory_mib``.

    Raises:
        InputError: the data cannot be read, are too few for three splits, or the network cannot
            label them.
    """
    splits = _read_splits(data, options, network, by_image)
    if network is not None and options.labels == "none":
        return with_answers(network, splits)
    return splits


def _read_splits(
    data: Data, options: DataOptions, network: nn.Module | None, by_image: bool
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
    if isinstance(given, Splits):
        return given
    if not by_image and (three or is_dataset(given)):
        datasets = given if three else [*_calibration_items(options), given]
        return item_splits(datasets, name, options)
    if three:
        labelled = options.labels == "given"
        sources = [open_dataset(part, f"{name} ({which})", labelled)
                   for part, which in zip(given, NAMES, strict=True)]  # fmt: skip
        return as_given(sources, options, network)
    parts = _with_calibration(_open(given, name, options), name, options)
    return divide(parts, options, network)


def _calibration_items(options: DataOptions) -> list[Any]:
    spec = options.calibration_data
    if spec is None:
        return []
    other = _called(spec)
    if not is_dataset(other):
        raise InputError(
            f"calibration_data for a data set is file.py:callable that makes one too; got {spec!r}"
        )
    return [other]


def _with_calibration(parts: Parts, name: str, options: DataOptions) -> Parts:
    spec = options.calibration_data
    if spec is None:
        return parts
    other = _open(_called(spec), spec, options)
    if other.train is None and parts.train is None and _same_place(spec, name):
        raise InputError(
            f"calibration_data and data are both {spec}; give images held out of training as data"
        )
    return Parts(held_out=parts.held_out, train=other.train or other.held_out)


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
