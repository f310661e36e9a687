"""A slim network's ONNX file, made of that of the network it comes from.

Translating a network takes seconds, however small it is. While channels go, only its weights
change: put into the first file, they give the next one in milliseconds, where that can be proven.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

import onnx
import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval, fuse_linear_bn_eval

from slimnet.export.parity import onnx_parity
from slimnet.export.tracing import evaluation_copy
from slimnet.groups.sides import BATCH_NORMS, PRODUCERS, TRANSPOSED
from slimnet.measure import TRANSPOSED_WEIGHT, forward
from slimnet.records import Inputs

WEIGHT = ".weight"
FOLDED_BIAS = ".weight_bias"
"""What the exporter calls the bias of a layer that has none, but takes in a batch norm."""


def write_reweighted(proto: onnx.ModelProto, model: nn.Module, inputs: Inputs, path: Path) -> bool:
    """Write the file ``proto`` with the weights of ``model``, and tell whether it is that network.

    Neither of the two is changed. ``inputs`` (images, ...) are what both are compared on. Where
    the network's code has written widths into the file, such as the shape that it reshapes to,
    the two are not the same.
    """
    try:
        path.write_bytes(_reweighted(proto, evaluation_copy(model), inputs).SerializeToString())
        onnx_parity(model, path, inputs)
    except Exception:  # a network that is unlike its file in any way has to be translated
        return False
    return True


def _reweighted(proto: onnx.ModelProto, model: nn.Module, inputs: Inputs) -> onnx.ModelProto:
    """Change the model: its batch norms are folded where they are in the file."""
    changed = onnx.ModelProto()
    changed.CopyFrom(proto)
    _fold_norms(model, inputs, {value.name for value in changed.graph.initializer})
    values, modules = model.state_dict(), dict(model.named_modules())
    for value in changed.graph.initializer:
        if (weights := _named(values, value.name)) is not None:
            array = weights.detach().contiguous().numpy()
            value.CopyFrom(onnx.numpy_helper.from_array(array, value.name))
    for node in changed.graph.node:
        for attribute in node.attribute:
            if attribute.name == "group":
                layer = modules.get(node.input[1].removesuffix(WEIGHT))
                attribute.i = getattr(layer, "groups", attribute.i)
    _flatten_any_width(changed)
    del changed.graph.value_info[:]  # shapes on the way
    return changed


def _flatten_any_width(proto: onnx.ModelProto) -> None:
    """Change a file: a reshape that makes one row of each image does so whatever its size."""
    shapes = {value.name: value.type.tensor_type.shape.dim for value in proto.graph.value_info}
    wanted = {value.name: value for value in proto.graph.initializer}
    for node in proto.graph.node:
        if node.op_type != "Reshape" or node.input[0] not in shapes or node.input[1] not in wanted:
            continue
        sizes = [size.dim_value for size in shapes[node.input[0]]]
        rows = onnx.numpy_helper.to_array(wanted[node.input[1]]).tolist()
        if rows == [-1, math.prod(sizes[1:])]:
            del node.attribute[:]
            node.op_type, node.input[:] = "Flatten", node.input[:1]


def _named(values: Mapping[str, Tensor], name: str) -> Tensor | None:
    """Return the weights that a file calls so; None if they are none of the network's."""
    if name.endswith(TRANSPOSED_WEIGHT):
        weights = values.get(name.removesuffix(TRANSPOSED_WEIGHT) + WEIGHT)
        return weights if weights is None else weights.T
    if name.endswith(FOLDED_BIAS):
        name = name.removesuffix(FOLDED_BIAS) + ".bias"
    return values.get(name)


def _fold_norms(model: nn.Module, inputs: Inputs, kept: set[str]) -> None:
    """Change the model: layers take in the batch norm behind them that is not in the file."""
    for name, norm in _normed(model, inputs):
        layer: Any = model.get_submodule(name)
        follower: Any = model.get_submodule(norm)
        if follower.running_mean is None or f"{norm}.running_mean" in kept:
            continue
        if isinstance(layer, nn.Linear):
            folded = fuse_linear_bn_eval(layer, follower)
        else:
            folded = fuse_conv_bn_eval(layer, follower, isinstance(layer, TRANSPOSED))
        model.set_submodule(name, folded)


def _normed(model: nn.Module, inputs: Inputs) -> list[tuple[str, str]]:
    """Return each layer whose own output a batch norm reads, with that norm; changes neither."""
    given: dict[str, Any] = {}
    pairs: list[tuple[str, str]] = []

    def watch(name: str, module: nn.Module, args: tuple[Any, ...], output: Any) -> None:
        if isinstance(module, PRODUCERS):
            given[name] = output
        elif args:
            pairs.extend((layer, name) for layer, seen in given.items() if args[0] is seen)

    watched = (*PRODUCERS, *BATCH_NORMS)
    with ExitStack() as hooks, torch.no_grad():
        for name, module in model.named_modules():
            if isinstance(module, watched):
                hooks.callback(module.register_forward_hook(partial(watch, name)).remove)
        forward(model, inputs)
    return pairs
