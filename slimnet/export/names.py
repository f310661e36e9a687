"""What the inputs, outputs and weights of an exported network are called."""

from __future__ import annotations

import ast
import inspect
import re
from typing import Any

import onnx
import torch
from torch import Tensor, nn
from torch.utils import _pytree

from slimnet.export.tracing import evaluation_copy
from slimnet.measure import TRANSPOSED_WEIGHT, forward, input_tensors
from slimnet.records import Inputs

NAME_SCOPES = "pkg.torch.onnx.name_scopes"


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


def name_weights(proto: onnx.ModelProto) -> None:
    """Change a file to call what its linear layers multiply by "layer.weight.T" each.

    A linear layer on tokens becomes a product with its weight transposed, of which PyTorch's
    exporter makes a nameless value; the notes of a node say of which layer it was.
    """
    if any(part.type == part.GRAPH for node in proto.graph.node for part in node.attribute):
        return  # a branch has nodes of its own, which read these values as well
    values = {value.name: value for value in proto.graph.initializer}
    named: dict[str, str] = {}
    for node in proto.graph.node:
        scopes = [note.value for note in node.metadata_props if note.key == NAME_SCOPES]
        factor = values.get(node.input[1]) if node.op_type == "MatMul" and scopes else None
        if factor is None or factor.name.endswith(".weight"):
            continue
        # the network's own name, those of its parts down to the layer, and the operation's
        layers: list[str] = ast.literal_eval(scopes[0])[1:-1]
        name = f"{layers[-1] if layers else ''}{TRANSPOSED_WEIGHT}"
        if layers and name not in values and name not in named.values():
            named.setdefault(factor.name, name)
    for node in proto.graph.node:
        node.input[:] = [named.get(name, name) for name in node.input]
    for value in values.values():
        value.name = named.get(value.name, value.name)


def _name(path: tuple[Any, ...]) -> str:
    text = "_".join(re.findall(r"\w+", _pytree.keystr(path)))
    return text if text and not text[0].isdigit() else f"output_{text}".rstrip("_")
