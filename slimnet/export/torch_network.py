"""A network of a comparison in PyTorch, with as little trust as it takes."""

from __future__ import annotations

import copy

from torch import nn

from slimnet.errors import InputError
from slimnet.export.program import load_program
from slimnet.export.slim_folder import load_slim
from slimnet.records import NetworkFile


def torch_network(
    network: NetworkFile, model: nn.Module | None, trust_pickle: bool, device: str
) -> nn.Module:
    """Return a network as PyTorch runs it: made of the original ``model``, else from its .pt2.

    The model is not changed. A .pt2 lies on the device already.

    Raises:
        InputError: neither is at hand, or the .pt2 may not be opened.
    """
    if network.folder is None:
        raise InputError(f"PyTorch cannot run {network.name}; give a folder that slimnet wrote")
    if model is not None:
        own = copy.deepcopy(model)
        return own if network.is_original else load_slim(network.folder, own)
    if network.is_original:
        raise InputError(
            f"{network.folder} holds no PyTorch program of the original; name its model file with "
            "--model"
        )
    if not trust_pickle:
        raise InputError(
            f"{network.folder / 'slim.pt2'} can hold code that would run when it is opened: allow "
            "it with --trust-pickle, or name the original's model file with --model instead"
        )
    return load_program(network.folder / "slim.pt2", device)
