"""Read files that hold ``images`` (or ``inputs``) and ``labels``: .npz, .safetensors, .pt."""

import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.torch
import torch
from torch import Tensor

from slimnet.data.source import (
    WITHOUT_LABELS,
    Source,
    checked_labels,
    checked_values,
    no_labels,
)
from slimnet.errors import InputError
from slimnet.load import listed, require_file, require_held, require_plausible, require_uncompressed

ARRAY_EXTENSIONS = (".npz", ".safetensors", ".pt", ".pth")
IMAGES, INPUTS, LABELS = "images", "inputs", "labels"
NAMES = (IMAGES, INPUTS, LABELS)
OTHER_INPUTS = "name the array inputs, (N, ...) as the network takes them, if they are no images"


def open_arrays(path: Path, labelled: bool = True) -> Source:
    """Return the inputs of a file of arrays; nothing in it is executed.

    ``images`` is (N, H, W, C), (N, C, H, W) or, grey, (N, H, W), uint8 or float. In its place
    ``inputs`` is (N, ...), as the network takes them: signals (N, C, L), videos (N, C, T, H, W),
    rows of a table (N, F). ``labels`` is (N,), and is not read unless they are ``labelled``.

    Raises:
        InputError: no such file or arrays, or arrays of another shape, type or with NaN.
    """
    require_file(path)
    arrays = _read(path)
    found = INPUTS if INPUTS in arrays and IMAGES not in arrays else IMAGES
    wanted = (found, LABELS) if labelled else (found,)
    other = [name for name in wanted if name in arrays and not isinstance(arrays[name], Tensor)]
    if other:
        raise InputError(
            f"{path}: {' and '.join(other)} must be arrays of numbers; got text or objects"
        )
    if any(not isinstance(arrays.get(name), Tensor) for name in wanted):
        hint = WITHOUT_LABELS if isinstance(arrays.get(found), Tensor) else OTHER_INPUTS
        raise InputError(
            f"{path} must hold arrays {' and '.join(wanted)}; it holds "
            f"{listed(arrays) or 'nothing'}; {hint}"
        )
    require_held([arrays[name] for name in wanted], str(path))
    name = str(path)
    inputs = checked_values(arrays[found], name, found)
    if found == IMAGES:
        inputs = _channels_first(inputs, path)
    elif inputs.ndim < 2:
        raise InputError(f"{path}: inputs have the shape (N, ...); got {tuple(inputs.shape)}")
    labels = arrays[LABELS] if labelled else no_labels(len(inputs))
    labels = checked_labels(labels, len(inputs), name, found)
    return Source(name, lambda i: inputs[i], labels, kind=found)


def _read(path: Path) -> Mapping[str, Any]:
    if zipfile.is_zipfile(path):
        if path.suffix == ".npz":
            require_plausible(path, NAMES)
        else:
            require_uncompressed(path)
    try:
        if path.suffix == ".npz":
            with np.load(path, allow_pickle=False) as archive:
                return {
                    name: _to_tensor(archive[name]) if name in NAMES else None
                    for name in archive.files
                }
        if path.suffix == ".safetensors":
            return safetensors.torch.load_file(path)
        found = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        # neither chained nor quoted: torch advises to switch the safety off
        raise InputError(
            f"{path} cannot be read as plain arrays ({type(error).__name__}): it is damaged or "
            "holds Python objects; save uint8 or float arrays images and labels"
        ) from None
    if not isinstance(found, Mapping):
        raise InputError(
            f"{path} must hold a dict of images and labels; got {type(found).__name__}"
        )
    return found


def _to_tensor(array: np.ndarray[Any, Any]) -> Tensor | None:
    """Return an array as a tensor, or None if it cannot be one, such as text."""
    try:
        return torch.from_numpy(np.ascontiguousarray(array))
    except TypeError:
        return None


def _channels_first(images: Tensor, path: Path) -> Tensor:
    if images.ndim == 3:
        return images.unsqueeze(1)
    if images.ndim != 4:
        raise InputError(
            f"{path}: images have the shape (N, H, W, C), (N, C, H, W) or (N, H, W); "
            f"got {tuple(images.shape)}; {OTHER_INPUTS}"
        )
    last, first = images.shape[3] in (1, 3), images.shape[1] in (1, 3)
    if last == first:
        raise InputError(
            f"{path}: images {tuple(images.shape)} do not show which axis is the channels; "
            "give (N, H, W, C) or (N, C, H, W) with C of 1 or 3, or a file.py:callable data set"
        )
    return images.permute(0, 3, 1, 2) if last else images
