"""Build the network that a state dict belongs to."""

import ast
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.overrides import TorchFunctionMode

from slimnet.errors import InputError
from slimnet.load.importing import first_line, folders_on_path, import_callable
from slimnet.options import nearest

RANDOM = {
    torch.Tensor.uniform_,
    torch.Tensor.normal_,
    nn.init.uniform_,
    nn.init.normal_,
    nn.init.kaiming_uniform_,
}


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
