"""Load the data, and divide it into calibration, selection and test."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from torch import nn
from torch.utils.data import DataLoader, Dataset

from slimnet.errors import InputError
from slimnet.load.arrays import ARRAY_EXTENSIONS, open_arrays
from slimnet.load.divide import as_given, divide
from slimnet.load.images import open_folder
from slimnet.load.importing import first_line, folders_on_path, import_callable
from slimnet.load.items import is_dataset, item_splits
from slimnet.load.live_data import open_dataset
from slimnet.load.source import Parts
from slimnet.load.torchvision_data import open_torchvision
from slimnet.load.unlabelled import with_answers
from slimnet.records import Splits
from slimnet.settings import Settings

Data = str | Path | Dataset[Any] | tuple[Dataset[Any], Dataset[Any], Dataset[Any]] | Splits
FORMS = (
    "an image folder, a .npz, .safetensors or .pt file of images and labels, "
    "torchvision:NAME@ROOT, file.py:callable, or a data set"
)


def load_splits(
    data: Data, settings: Settings, network: nn.Module | None = None, *, by_image: bool = True
) -> Splits:
    """Return the calibration, selection and test splits of some data, which is not changed.

    ``data`` is an image folder, a .npz, .safetensors or .pt file with ``images`` and ``labels``,
    ``torchvision:NAME@ROOT``, ``file.py:callable``, a map-style data set, three of these
    (calibration, selection, test), or ready splits. Calibration comes from the training part
    where there is one; selection and test only ever come from images held out of it. Where the
    settings say that there are no labels, the network's own answers stand for them. Where it
    takes grey images only, colour images become grey. Unless the task is one of labelled images
    (``by_image``), live data sets may have items of any form, collated as torch does it.

    Raises:
        InputError: the data cannot be read, are too few for three splits, or the network cannot
            label them.
    """
    splits = _read_splits(data, settings, network, by_image)
    if network is not None and settings.labels == "none":
        return with_answers(network, splits)
    return splits


def _read_splits(
    data: Data, settings: Settings, network: nn.Module | None, by_image: bool
) -> Splits:
    name = str(data) if isinstance(data, (str, Path)) else type(data).__name__
    given: Any = _called(data)
    if _is_several(given) and not _is_three(given):
        raise InputError(
            f"data are one data set, or three: calibration, selection, test; got {len(given)}"
        )
    if isinstance(given, Splits) or _is_three(given):
        if settings.calibration_data is not None:
            raise InputError(
                "the data already come with a calibration split; leave calibration_data out"
            )
        if isinstance(given, Splits):
            return given
        if not by_image:
            return item_splits(given, name, settings)
        names = ("calibration", "selection", "test")
        sources = [
            open_dataset(part, f"{name} ({which})", _labelled(settings))
            for part, which in zip(given, names, strict=True)
        ]
        return as_given(sources, settings, network)
    if not by_image and is_dataset(given):
        return item_splits([*_calibration_items(settings), given], name, settings)
    parts = _with_calibration(_open(given, name, settings), name, settings)
    return divide(parts, settings, network)


def _calibration_items(settings: Settings) -> list[Any]:
    spec = settings.calibration_data
    if spec is None:
        return []
    other = _called(spec)
    if not is_dataset(other):
        raise InputError(
            f"calibration_data for a data set is file.py:callable that makes one too; got {spec!r}"
        )
    return [other]


def _with_calibration(parts: Parts, name: str, settings: Settings) -> Parts:
    spec = settings.calibration_data
    if spec is None:
        return parts
    other = _open(_called(spec), spec, settings)
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


def _is_three(data: Any) -> bool:
    return isinstance(data, (tuple, list)) and len(data) == 3


def _labelled(settings: Settings) -> bool:
    return settings.labels == "given"


def _open(data: Any, name: str, settings: Settings) -> Parts:
    labelled = _labelled(settings)
    if isinstance(data, str) and data.startswith("torchvision:"):
        return open_torchvision(data.removeprefix("torchvision:"))
    if isinstance(data, (str, Path)):
        return _open_path(Path(data).expanduser(), labelled)
    if isinstance(data, Dataset) or hasattr(data, "__getitem__"):
        return Parts(open_dataset(data, name, labelled))
    hint = ": give its data set (loader.dataset)" if isinstance(data, DataLoader) else ""
    raise InputError(f"data are {FORMS}; got a {type(data).__name__}{hint}")


def _open_path(path: Path, labelled: bool) -> Parts:
    if path.is_dir():
        return open_folder(path, labelled)
    if path.exists() and path.suffix not in ARRAY_EXTENSIONS:
        raise InputError(f"data are {FORMS}; got the file {path}")
    return Parts(open_arrays(path, labelled))
