"""What the inputs and outputs of an exported network are called."""

from __future__ import annotations

import inspect
import re
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils import _pytree

from slimnet.export.tracing import evaluation_copy
from slimnet.measure import forward, input_tensors
from slimnet.records import Inputs


def input_names(model: nn.Module, example: Inputs) -> list[str]:
    """Return "input" for the only one, else the names of the forward's own arguments."""
    tensors = input_tensors(example)
    if len(tensors) == 1:
        return ["input"]
    names: list[str] = []
    for parameter in inspect.signature(model.forward).parameters.values():
        if parameter.kind is not parameter.VAR_POSITIONAL:
            names.append(parameter.name)
    names += [f"input_{number}" for number in range(len(names), len(tensors))]
    return names[: len(tensors)]


def output_names(model: nn.Module, example: Inputs) -> list[str]:
    """Return "output" for the only tensor, else names from the keys and places in the output.

    The model is run on the example, and not changed. {"out": x, "aux": y} gives "out" and "aux",
    (x, y) gives "output_0" and "output_1".
    """
    with torch.no_grad():
        output = forward(evaluation_copy(model), example)
    if isinstance(output, Tensor):
        return ["output"]
    leaves, _ = _pytree.tree_flatten_with_path(output)
    names = [_name(path) for path, leaf in leaves if isinstance(leaf, Tensor)]
    taken = set(input_names(model, example))  # in an ONNX file no two values share a name
    return [f"{name}_output" if name in taken else name for name in names]


def _name(path: tuple[Any, ...]) -> str:
    text = "_".join(re.findall(r"\w+", _pytree.keystr(path)))
    return text if text and not text[0].isdigit() else f"output_{text}".rstrip("_")
