"""Read a model file. Its content shows its format, not its extension."""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import Any

import safetensors.torch

from slimnet.errors import InputError
from slimnet.load.files import (
    entries,
    require_file,
    require_uncompressed,
)
from slimnet.load.importing import first_line
from slimnet.load.prepare import scripted_message
from slimnet.load.safe_pickle import read_pickle
from slimnet.options import ModelOptions

# torch.save before 1.6 pickles this number first
LEGACY_START = b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."


def read_model_file(path: Path, options: ModelOptions) -> Any:
    """Return the content of a model file: a network, a state dict, or anything else.

    Raises:
        InputError: it is not a model file, or not safe to read.
    """
    require_file(path)
    with path.open("rb") as file:
        start = file.read(len(LEGACY_START))
    if _is_safetensors(start, path.stat().st_size):
        return _read_safetensors(path)
    if zipfile.is_zipfile(path):
        _require_plain_archive(path)
        return read_pickle(path, options.allow, options.trust_pickle)
    if start == LEGACY_START:
        return read_pickle(path, options.allow, options.trust_pickle, legacy=True)
    raise InputError(
        f"{path} is not a model file: it holds neither what torch.save writes nor safetensors, "
        "or it is truncated; save the network or its state dict again"
    )


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
