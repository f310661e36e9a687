"""Load a trained network from a file or take a live one."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from torch import Tensor, nn

from slimnet.errors import InputError
from slimnet.load.architecture import build_architecture
from slimnet.load.importing import first_line
from slimnet.load.model_file import read_model_file, sha256_of
from slimnet.load.prepare import (
    precision_notes,
    prepare,
    require_unscripted,
    unwrapped,
)
from slimnet.load.state_dict import find_weights, load_weights
from slimnet.records import LoadedModel
from slimnet.settings import Settings


def load_model(source: str | Path | nn.Module, settings: Settings) -> LoadedModel:
    """Return a network of its own; a live ``source`` is copied and stays as it is.

    The network is in eval mode, on the CPU, in float32, with gradients on for its weights. A file
    may be what torch.save wrote of a network, a state dict or a training checkpoint, or
    safetensors. Nothing in the file is executed unless ``settings.trust_pickle``.

    Raises:
        InputError: the file cannot be read, is not safe, or does not fit ``settings.arch``.
    """
    if isinstance(source, nn.Module):
        return _from_live(source, settings)
    if not isinstance(source, (str, Path)):
        kind = source.__name__ if isinstance(source, type) else type(source).__name__
        raise InputError(
            f"the model is a network (an instance of its class) or the path of a file; got {kind}"
        )
    path = Path(source).expanduser()
    name = str(path)
    weights = find_weights(read_model_file(path, settings), name)
    with _whatever_was_put_in(name):
        if isinstance(weights, nn.Module):
            require_unscripted(weights, name)
            weights = unwrapped(weights)
            if settings.arch is not None:
                weights = weights.state_dict()
        notes = precision_notes(weights)
        if not isinstance(weights, nn.Module):
            weights = _onto_architecture(weights, settings, name)
        return LoadedModel(prepare(weights, name), name, sha256_of(path), notes)


def _from_live(source: nn.Module, settings: Settings) -> LoadedModel:
    if settings.arch is not None:
        raise InputError("arch is for model files; got a live network too: leave arch out")
    inner = unwrapped(source)
    name = type(inner).__name__
    require_unscripted(inner, name)
    try:
        network = copy.deepcopy(inner)
    except Exception as error:  # a module's own __deepcopy__ may raise anything
        raise InputError(f"the network {name} cannot be copied: {first_line(error)}") from error
    with _whatever_was_put_in(name):
        return LoadedModel(prepare(network, name), name, None, precision_notes(inner))


@contextmanager
def _whatever_was_put_in(source: str) -> Iterator[None]:
    """Turn any failure into one line: a network that somebody made up may fail in any way."""
    try:
        yield
    except InputError:
        raise
    except Exception as error:
        raise InputError(
            f"{source} is no whole network ({first_line(error)}): it is damaged; save it again"
        ) from error


def _onto_architecture(state: Mapping[str, Tensor], settings: Settings, source: str) -> nn.Module:
    if settings.arch is None:
        raise InputError(
            f"{source} holds weights without the network; say which network with --arch, such as "
            "--arch torchvision:resnet18 --arch-arg num_classes=10 or --arch path/net.py:Net"
        )
    network = unwrapped(build_architecture(settings.arch, settings.arch_arg))
    require_unscripted(network, settings.arch)
    load_weights(network, state, source)
    return network
