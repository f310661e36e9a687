"""What claims to hold far more than it does is refused before any of it takes memory."""

from __future__ import annotations

import zipfile
from collections.abc import Collection, Sequence
from pathlib import Path

import torch
from torch import Tensor

from slimnet.errors import InputError
from slimnet.load.importing import first_line
from slimnet.load.shown import shown

MOST_TIMES_LARGER = 100
UNSUSPICIOUS_BYTES = 64 * 1024**2
SHARED_BYTES = 256 * 1024**2


def entries(path: Path) -> list[zipfile.ZipInfo]:
    """Return what the directory of an archive says of its entries; none is read.

    Raises:
        InputError: the directory cannot be read.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            return archive.infolist()
    except Exception as error:  # a damaged directory may raise anything
        raise InputError(f"{path} is a damaged archive: {first_line(error)}") from error


def require_uncompressed(path: Path) -> None:
    """Refuse an archive whose entries are larger together than it is; torch.save compresses none.

    Raises:
        InputError: they are, or its directory cannot be read.
    """
    claimed, held = sum(entry.file_size for entry in entries(path)), path.stat().st_size
    if claimed > held:
        raise InputError(
            f"{path} has {held:,} bytes but claims to hold {claimed:,}: it was compressed or is "
            "made to fill the memory; give it as torch.save wrote it"
        )


def require_plausible(path: Path, names: Collection[str]) -> None:
    """Refuse an .npz with a large array that is hardly anything compressed; images are not so.

    Only the arrays of these names are looked at. Its directory bounds what is ever inflated.

    Raises:
        InputError: there is one, or its directory cannot be read.
    """
    for entry in entries(path):
        name = entry.filename.removesuffix(".npy")
        large = entry.file_size > max(UNSUSPICIOUS_BYTES, MOST_TIMES_LARGER * entry.compress_size)
        if name in names and large:
            raise InputError(
                f"{path}: {shown(name)} would grow from {entry.compress_size:,} to "
                f"{entry.file_size:,} bytes when read, which no images do; save it uncompressed "
                "if they are all alike"
            )


def require_held(tensors: Sequence[Tensor], source: str) -> None:
    """Refuse tensors of many more values than there are, by strides of 0 or one shared storage.

    Raises:
        InputError: they would take far more memory each on its own.
    """
    storages = {
        (tensor.device, tensor.untyped_storage().data_ptr()): tensor.untyped_storage()
        for tensor in tensors
        if tensor.layout == torch.strided
    }
    claimed = sum(tensor.numel() * tensor.element_size() for tensor in tensors)
    held = sum(storage.nbytes() for storage in storages.values())
    if claimed > held + SHARED_BYTES:
        raise InputError(
            f"{source}: its tensors claim {claimed:,} bytes of values but hold {held:,}; save each "
            "with values of its own (contiguous)"
        )
