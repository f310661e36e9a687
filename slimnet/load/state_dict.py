"""Find the state dict in a checkpoint and load it, strictly, onto an architecture."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from torch import Tensor, nn

from slimnet.errors import InputError
from slimnet.load.importing import first_line
from slimnet.load.shown import listed, shown

NESTED_UNDER = ("state_dict", "model_state_dict", "model", "module", "network", "net")
DEEPEST = 8
PREFIXES = ("module.", "model.", "_orig_mod.")


def find_weights(found: Any, source: str, depth: int = 0) -> nn.Module | dict[str, Tensor]:
    """Return the network or the state dict that a loaded file holds, itself or nested.

    A training checkpoint may hold either under ``state_dict``, ``model_state_dict``, ``model``,
    ``module``, ``network`` or ``net``.

    Raises:
        InputError: it holds neither.
    """
    if isinstance(found, nn.Module):
        return found
    if isinstance(found, Mapping):
        if _is_state_dict(found):
            return dict(found)
        for key in NESTED_UNDER if depth < DEEPEST else ():
            if isinstance(found.get(key), (Mapping, nn.Module)):
                return find_weights(found[key], f"{source}[{key!r}]", depth + 1)
    raise InputError(
        f"{source} must hold a network, a state dict, or a checkpoint with one under "
        f"{', '.join(NESTED_UNDER)}; got {_described(found)}"
    )


def load_weights(model: nn.Module, state: Mapping[str, Tensor], source: str) -> None:
    """Change the model: copy every tensor of a state dict into it.

    A ``module.``, ``model.`` or ``_orig_mod.`` before every key is taken off where that fits more.

    Raises:
        InputError: a key is missing, unexpected, or has another shape; the first 5 are named.
    """
    wanted = model.state_dict()
    fitted = _without_prefix(state, set(wanted))
    for key in wanted:
        # files from before torch 0.4.1 lack this counter, and inference does not read it
        if key.endswith("num_batches_tracked"):
            fitted.setdefault(key, wanted[key])
    problems = _problems(wanted, fitted)
    if problems:
        raise InputError(f"{source} does not fit the architecture: {'; '.join(problems)}")
    try:
        model.load_state_dict(fitted, strict=True)
    except Exception as error:  # a module's own loading hook may raise anything
        raise InputError(
            f"{source} cannot be loaded onto the architecture: {first_line(error)}"
        ) from error


def _is_state_dict(found: Mapping[Any, Any]) -> bool:
    return bool(found) and all(
        isinstance(key, str) and (isinstance(value, Tensor) or key.endswith("_extra_state"))
        for key, value in found.items()
    )


def _without_prefix(state: Mapping[str, Tensor], wanted: set[str]) -> dict[str, Tensor]:
    best = current = dict(state)
    while prefix := _common_prefix(current):
        current = {key[len(prefix) :]: value for key, value in current.items()}
        if len(wanted & set(current)) > len(wanted & set(best)):
            best = current
    return dict(best)


def _common_prefix(keys: Iterable[str]) -> str | None:
    shared = (prefix for prefix in PREFIXES if all(key.startswith(prefix) for key in keys))
    return next(shared, None)


def _problems(wanted: Mapping[str, Tensor], given: Mapping[str, Tensor]) -> list[str]:
    missing = [key for key in wanted if key not in given]
    unexpected = [key for key in given if key not in wanted]
    shapes = [
        f"{shown(key)} {_shape(given[key])} instead of {_shape(wanted[key])}"
        for key in wanted
        if key in given and _shape(given[key]) != _shape(wanted[key])
    ]
    kinds = (("missing", missing), ("unexpected", unexpected), ("of another shape", shapes))
    return [f"{len(keys)} {kind} ({listed(keys)})" for kind, keys in kinds if keys]


def _shape(value: Any) -> tuple[int, ...] | None:
    return tuple(value.shape) if isinstance(value, Tensor) else None


def _described(found: Any) -> str:
    if isinstance(found, Mapping):
        keys = listed(found)
        return f"a dict with the keys {keys}" if keys else "an empty dict"
    return f"a {type(found).__name__}"
