"""Load a trained network from a file, or copy a live one."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from torch import Tensor, nn

from slimnet.errors import InputError
from slimnet.load.architecture import build_architecture, find_weights, load_weights
from slimnet.load.files import sha256_of
from slimnet.load.importing import first_line
from slimnet.load.model_file import read_model_file
from slimnet.load.prepare import precision_notes, prepare, require_unscripted, unwrapped
from slimnet.options import ModelOptions
from slimnet.records import LoadedModel


def load_model(source: str | Path | nn.Module, options: ModelOptions) -> LoadedModel:
    """Return the network of a file, or a copy of a live one, which is not changed.

    It is in eval mode, on the CPU, in float32, with gradients on for its weights. A file holds a
    network, a state dict or a training checkpoint as torch.save writes them, or safetensors.
    Nothing in the file is executed unless ``options.trust_pickle``.

    Raises:
        InputError: the file cannot be read, is not safe, or does not fit ``options.arch``.
    """
    if isinstance(source, nn.Module):
        return _from_live(source, options)
    if not isinstance(source, (str, Path)):
        kind = source.__name__ if isinstance(source, type) else type(source).__name__
        raise InputError(
            f"the model is a network (an instance of its class) or the path of a file; got {kind}"
        )
    path = Path(source).expanduser()
    name = str(path)
    weights = find_weights(read_model_file(path, options), name)
    with _in_one_line(name):
        if isinstance(weights, nn.Module):
            require_unscripted(weights, name)
            weights = unwrapped(weights)
            if options.arch is not None:
                weights = weights.state_dict()
        notes = precision_notes(weights)
        if not isinstance(weights, nn.Module):
            weights = _onto_architecture(weights, options, name)
        return LoadedModel(prepare(weights, name), name, sha256_of(path), notes)


def _from_live(source: nn.Module, options: ModelOptions) -> LoadedModel:
    if options.arch is not None:
        raise InputError("arch is for model files; got a live network too: leave arch out")
    inner = unwrapped(source)
    name = type(inner).__name__
    require_unscripted(inner, name)
    try:
        network = copy.deepcopy(inner)
    except Exception as error:  # a module's own __deepcopy__ may raise anything
        raise InputError(f"the network {name} cannot be copied: {first_line(error)}") from error
    with _in_one_line(name):
        return LoadedModel(prepare(network, name), name, None, precision_notes(inner))


@contextmanager
def _in_one_line(source: str) -> Iterator[None]:
    """Turn any failure in the block into one line: a hostile file may make anything fail."""
    try:
        yield
    except InputError:
        raise
    except Exception as error:
        raise InputError(
            f"{source} is no whole network ({first_line(error)}): it is damaged; save it again"
        ) from error


def _onto_architecture(
    state: Mapping[str, Tensor], options: ModelOptions, source: str
) -> nn.Module:
    if options.arch is None:
        raise InputError(
            f"{source} holds weights without the network; say which network with --arch, such as "
            "--arch torchvision:resnet18 --arch-arg num_classes=10 or --arch path/net.py:Net"
        )
    network = unwrapped(build_architecture(options.arch, options.arch_arg))
    require_unscripted(network, options.arch)
    load_weights(network, state, source)
    return network
