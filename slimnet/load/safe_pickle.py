"""Read a torch file without running anything that it names outside a static list."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.serialization import get_unsafe_globals_in_checkpoint, safe_globals

from slimnet.errors import InputError
from slimnet.load.allowed_classes import MODULE_CLASSES, OTHER_NAMES
from slimnet.load.importing import first_line, folders_on_path, import_module
from slimnet.load.shown import listed

Named = Callable[..., Any] | tuple[Callable[..., Any], str]

WRAPPERS = {
    "torch._dynamo.eval_frame.OptimizedModule": "or save model._orig_mod, what was compiled",
    "torch.nn.parallel.distributed.DistributedDataParallel": "or save model.module, what it wraps",
}


def read_pickle(path: Path, allow: Sequence[str], trust: bool, legacy: bool = False) -> Any:
    """Return what a torch file holds, on the CPU.

    Only classes of the static list and those in ``allow`` ("package.module.Class") are built.
    ``trust`` runs the file's own code where it names something else. ``legacy``: the file has the
    form from before torch 1.6, whose names cannot be listed without reading it.

    Raises:
        InputError: the file names something that is not allowed, or is damaged.
    """
    names = [] if legacy else _names_in(path)
    refused = [name for name in names if not _on_list(name) and name not in allow]
    if refused and trust:
        return _read_trusting(path)
    if refused:
        raise InputError(_refusal(path, refused))
    known = MODULE_CLASSES | OTHER_NAMES if legacy else set(names)
    allowed = [found for name in sorted(known | set(allow)) for found in _resolve(name, allow)]
    try:
        # a pickle may call a class: nn.Linear(10**9, 10**9) takes no memory on meta, and has no
        # values; a class that the user allows may make tensors of its own
        with safe_globals(allowed), nullcontext() if allow else torch.device("meta"):
            return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # a damaged pickle may raise anything
        if legacy and trust:
            return _read_trusting(path)
        # not chained: torch's text advises to switch the safety off
        raise InputError(_unreadable(path, legacy, error)) from None


def _names_in(path: Path) -> list[str]:
    try:
        return sorted(get_unsafe_globals_in_checkpoint(path))
    except Exception as error:  # a damaged pickle may raise anything
        raise InputError(
            f"{path} cannot be read as a torch file ({type(error).__name__}): it is truncated, "
            "damaged, or was not written by torch.save; save it again"
        ) from None


def _on_list(name: str) -> bool:
    return name in MODULE_CLASSES or name in OTHER_NAMES


def _resolve(name: str, allow: Sequence[str]) -> list[Named]:
    """Return the object under the name it has in the file; nothing where torchvision lacks it."""
    if _on_list(name):
        return _resolve_listed(name)
    module_name, _, class_name = name.rpartition(".")
    if name not in allow or not module_name:
        raise InputError(f"--allow takes package.module.Class; got {name!r}")
    found = getattr(import_module(module_name), class_name, None)
    if not isinstance(found, type) or not issubclass(found, nn.Module):
        raise InputError(
            f"--allow takes subclasses of torch.nn.Module; {name} is not one or does not exist"
        )
    return [(found, name)]


def _resolve_listed(name: str) -> list[Named]:
    module_name, _, class_name = name.rpartition(".")
    try:  # both names come from the static list, never from the file
        found = getattr(importlib.import_module(module_name), class_name)
    except (ImportError, AttributeError):
        if name == "torch._C._nn.gelu":  # a part of torch that is no importable module
            return [(torch.nn.functional.gelu, name)]
        return []
    is_module = isinstance(found, type) and issubclass(found, nn.Module)
    return [(found, name)] if is_module or name in OTHER_NAMES else []


def _read_trusting(path: Path) -> Any:
    try:
        with folders_on_path(Path.cwd()):
            return torch.load(path, map_location="cpu", weights_only=False)
    except Exception as error:  # the file's own code may raise anything
        raise InputError(f"{path} failed while its code ran: {first_line(error)}") from error


def _refusal(path: Path, refused: Sequence[str]) -> str:
    hints = [hint for name, hint in WRAPPERS.items() if name in refused]
    return (
        f"{path} names code that is not on the safe list: {listed(refused, 10)}. Nothing was run. "
        "Either give --allow package.module.Class for each class you trust, or --trust-pickle, "
        "which runs whatever code the file holds, or save the state dict and give it with --arch"
        + "".join(f"; {hint}" for hint in hints)
    )


def _unreadable(path: Path, legacy: bool, error: Exception) -> str:
    if legacy:
        return (
            f"{path} is a torch file of the old form (before 1.6) that is damaged or holds more "
            "than weights; save its state dict again with a newer torch and give --arch"
        )
    return (
        f"{path} cannot be read safely ({type(error).__name__}): it is truncated, damaged, or "
        "not what torch.save writes; save its state dict again and give --arch"
    )
