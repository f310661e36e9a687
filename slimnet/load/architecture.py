"""Build the network that a state dict belongs to, and load the weights onto it, strictly."""

import ast
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from slimnet.errors import InputError
from slimnet.load.importing import first_line, folders_on_path, import_callable, listed, shown
from slimnet.options import nearest

RANDOM = {
    torch.Tensor.uniform_,
    torch.Tensor.normal_,
    nn.init.uniform_,
    nn.init.normal_,
    nn.init.kaiming_uniform_,
}
NESTED_UNDER = ("state_dict", "model_state_dict", "model", "module", "network", "net")
DEEPEST = 8  # a guess; a checkpoint that holds itself must end somewhere
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

    A ``module.``, ``model.`` or ``_orig_mod.`` before every key is dropped where more keys fit so.

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


def build_architecture(arch: str, arguments: Sequence[str]) -> nn.Module:
    """Return a new network, for a state dict to be loaded onto.

    ``arch`` is ``torchvision:resnet18`` (nothing is downloaded), ``package.module:callable`` or
    ``path/file.py:callable``. ``arguments`` are ``name=value``; a value is a Python literal, or
    else a string. Weights are those of the constructor; torchvision's are not initialised.

    Raises:
        InputError: no such architecture, a malformed argument, the callable failed, or it did
            not return an nn.Module.
    """
    named = _parse_arguments(arguments)
    if arch.startswith("torchvision:"):
        build = _torchvision_builder(arch.removeprefix("torchvision:"), named)
    else:
        build = import_callable(arch)
    try:
        with folders_on_path(Path.cwd()):
            network = build(**named)
    except Exception as error:  # the user's code may raise anything
        raise InputError(f"building {arch} failed: {first_line(error)}") from error
    if not isinstance(network, nn.Module):
        raise InputError(f"{arch} must return a torch.nn.Module; got a {type(network).__name__}")
    return network


def _parse_arguments(arguments: Sequence[str]) -> dict[str, Any]:
    named: dict[str, Any] = {}
    for argument in arguments:
        name, equals, text = argument.partition("=")
        if not equals or not name.strip().isidentifier():
            raise InputError(f"--arch-arg takes name=value; got {argument!r}")
        try:
            named[name.strip()] = ast.literal_eval(text.strip())
        except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
            named[name.strip()] = text
    return named


def _torchvision_builder(name: str, named: dict[str, Any]) -> Callable[..., Any]:
    import torchvision  # here, because it takes a second to import

    known = torchvision.models.list_models(module=torchvision.models)
    if name not in known:
        raise InputError(f"torchvision has no classifier {name!r}{nearest(name, known)}")
    if "weights" in named or "pretrained" in named:
        raise InputError("weights come from the model file, nothing is downloaded; drop weights=")
    if name in ("googlenet", "inception_v3"):
        named.setdefault("init_weights", False)  # their own is slow, and is overwritten

    def build(**chosen: Any) -> Any:
        with _WithoutRandomWeights():
            return torchvision.models.get_model(name, weights=None, **chosen)

    return build


class _WithoutRandomWeights(TorchFunctionMode):
    """Leaves weights uninitialised: a file overwrites them all, and drawing them takes seconds."""

    def __torch_function__(
        self, func: Any, types: Any, args: Any = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        named = kwargs or {}
        if func in RANDOM:
            return args[0] if args else named["tensor"]
        return func(*args, **named)
