"""Read a model file; its content, not its extension, says of what kind it is."""

from __future__ import annotations

import hashlib
import zipfile
from pathlib import Path
from typing import Any

import safetensors.torch

from slimnet.errors import InputError
from slimnet.load.archive import entries, require_uncompressed
from slimnet.load.importing import first_line
from slimnet.load.prepare import scripted_message
from slimnet.load.safe_pickle import read_pickle
from slimnet.settings import Settings

# torch.save before 1.6 pickles this number first
LEGACY_START = b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."


def read_model_file(path: Path, settings: Settings) -> Any:
    """Return what a model file holds: a network, a state dict, or whatever else was saved.

    Raises:
        InputError: no readable model file, or one that is not safe to read.
    """
    require_file(path)
    with path.open("rb") as file:
        start = file.read(len(LEGACY_START))
    if _is_safetensors(start, path.stat().st_size):
        return _read_safetensors(path)
    if zipfile.is_zipfile(path):
        _require_plain_archive(path)
        return read_pickle(path, settings.allow, settings.trust_pickle)
    if start == LEGACY_START:
        return read_pickle(path, settings.allow, settings.trust_pickle, legacy=True)
    raise InputError(
        f"{path} is not a model file: it holds neither what torch.save writes nor safetensors, "
        "or it is truncated; save the network or its state dict again"
    )


def require_file(path: Path) -> None:
    """Refuse what is no file with something in it.

    Raises:
        InputError: missing, a folder, or empty.
    """
    if path.is_dir():
        raise InputError(f"{path} is a folder; give a file")
    if not path.exists():
        raise InputError(f"there is no file {path}; give the path of an existing file")
    if not path.is_file():  # opening a pipe would wait for ever
        raise InputError(f"{path} is a pipe or a device; give a file")
    try:
        with path.open("rb") as file:
            empty = not file.read(1)
    except OSError as error:
        raise InputError(f"{path} cannot be opened: {first_line(error)}") from error
    if empty:
        raise InputError(f"{path} is empty; save it again")


def sha256_of(path: Path) -> str:
    """Return the SHA-256 of a file, in hexadecimal."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def _is_safetensors(start: bytes, file_bytes: int) -> bool:
    header_bytes = int.from_bytes(start[:8], "little")
    return len(start) > 8 and start[8:9] == b"{" and header_bytes < 1 << 27 and file_bytes > 8


def _read_safetensors(path: Path) -> Any:
    try:
        return safetensors.torch.load_file(path, device="cpu")
    except Exception as error:  # its own error type, OSError, or a dtype torch lacks
        raise InputError(f"{path} is a damaged safetensors file: {first_line(error)}") from error


def _require_plain_archive(path: Path) -> None:
    require_uncompressed(path)
    names = [entry.filename.partition("/")[2] for entry in entries(path)]
    if "constants.pkl" in names:
        raise InputError(scripted_message(str(path)))
    if any(name.startswith("models/") for name in names) or "serialized_exported_program.json" in (
        names
    ):
        raise InputError(
            f"{path} is an exported program; its layers cannot be pruned: give the original "
            "network, or its state dict with --arch"
        )
    if "data.pkl" not in names:
        raise InputError(f"{path} is an archive, but not one that torch.save wrote")
