"""Files: read whole or refused, written whole or not at all."""

import hashlib
import os
import secrets
import zipfile
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TypeVar

import torch
from pydantic import TypeAdapter, ValidationError
from torch import Tensor

from slimnet.errors import InputError
from slimnet.load.importing import first_line, shown

# images hardly compress to a hundredth; a small array does no harm however small its entry is
MAX_TIMES_LARGER = 100
UNSUSPICIOUS_BYTES = 64 * 1024**2
# shared weights may claim twice what they hold; a guess that leaves room for that
SHARED_BYTES = 256 * 1024**2
READ_BYTES = 1 << 20

Record = TypeVar("Record")


@contextmanager
def partial_file(path: Path) -> Iterator[Path]:
    """Yield a temporary sibling; rename it to ``path`` on success, remove it on any failure.

    Raises:
        InputError: the file cannot be written there.
    """
    temporary = path.with_name(f".{path.stem}.{secrets.token_hex(4)}{path.suffix}")
    try:
        yield temporary
        os.replace(temporary, path)
    except OSError as error:
        raise InputError(f"cannot write {path.name}: {error.strerror or error}") from error
    finally:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)


def require_file(path: Path) -> None:
    """Refuse a path that is not a file with content.

    Raises:
        InputError: missing, a folder, or empty.
    """
    if path.is_dir():
        raise InputError(f"{path} is a folder; give a file")
    if not path.exists():
        raise InputError(f"there is no file {path}; give the path of an existing file")
    if not path.is_file():  # opening a pipe would wait forever
        raise InputError(f"{path} is a pipe or a device; give a file")
    try:
        with path.open("rb") as file:
            empty = not file.read(1)
    except OSError as error:
        raise InputError(f"{path} cannot be opened: {first_line(error)}") from error
    if empty:
        raise InputError(f"{path} is empty; save it again")


def record_from_json(kind: type[Record], text: str) -> Record:
    """Return a record of some kind from JSON; fields that the kind does not have are ignored.

    Raises:
        ValueError: a field is missing or of another type, which is never converted; in one line.
    """
    try:
        return TypeAdapter(kind).validate_json(text, strict=True)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        place = ".".join(map(str, first["loc"]))
        raise ValueError(f"{place}: {first['msg']}" if place else first["msg"]) from error


def sha256_of(path: Path) -> str:
    """Return the SHA-256 of a file, in hexadecimal."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(READ_BYTES):
            digest.update(block)
    return digest.hexdigest()


def entries(path: Path) -> list[zipfile.ZipInfo]:
    """Return the entries that the directory of an archive lists; none is read.

    Raises:
        InputError: the directory cannot be read.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            return archive.infolist()
    except Exception as error:  # a damaged directory may raise anything
        raise InputError(f"{path} is a damaged archive: {first_line(error)}") from error


def require_uncompressed(path: Path) -> None:
    """Refuse a compressed archive; torch.save compresses nothing.

    Raises:
        InputError: its entries are larger together than it is, or its directory cannot be read.
    """
    claimed, held = sum(entry.file_size for entry in entries(path)), path.stat().st_size
    if claimed > held:
        raise InputError(
            f"{path} has {held:,} bytes but claims to hold {claimed:,}: it was compressed or is "
            "made to fill the memory; give it as torch.save wrote it"
        )


def require_plausible(path: Path, names: Collection[str]) -> None:
    """Refuse an .npz where a large array of these names is next to nothing compressed.

    Images do not compress so well. No more is ever inflated than the directory says.

    Raises:
        InputError: there is such an array, or the directory cannot be read.
    """
    for entry in entries(path):
        name = entry.filename.removesuffix(".npy")
        large = entry.file_size > max(UNSUSPICIOUS_BYTES, MAX_TIMES_LARGER * entry.compress_size)
        if name in names and large:
            raise InputError(
                f"{path}: {shown(name)} would grow from {entry.compress_size:,} to "
                f"{entry.file_size:,} bytes when read, which no data do; save it uncompressed "
                "if they are all alike"
            )


def require_held(tensors: Sequence[Tensor], source: str) -> None:
    """Refuse tensors that claim many more values than they hold, by strides of 0 or sharing.

    Raises:
        InputError: copies of them would take far more memory.
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
