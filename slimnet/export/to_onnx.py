"""A traced network as ONNX in memory: valid, complete, and free of anything about this machine."""

from __future__ import annotations

import ast
import inspect
import re
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import onnx
import onnx_ir as ir
import torch
from onnx.external_data_helper import uses_external_data
from onnx_ir.passes.common import ClearMetadataAndDocStringPass
from torch import Tensor, nn
from torch.export import ExportedProgram
from torch.utils import _pytree

from slimnet.errors import InputError, ProofError
from slimnet.export.obstacles import deepest_cause
from slimnet.export.tracing import (
    BATCH,
    copy_to_trace,
    evaluation_copy,
    free_axes,
    neutral_inputs,
    quiet,
)
from slimnet.records import Inputs
from slimnet.tasks import forward, input_tensors
from slimnet.timing import TRANSPOSED_WEIGHT

Names = tuple[list[str], list[str]]
"""Names of a network's inputs and of its outputs."""
NAMED = (".weight", TRANSPOSED_WEIGHT)
NAME_SCOPES = "pkg.torch.onnx.name_scopes"


def to_onnx(
    program: ExportedProgram, model: nn.Module, example: Inputs, opset: int, free_size: bool = False
) -> onnx.ModelProto:
    """Return a network as ONNX; changes neither the network nor its program.

    The same network gives the same ONNX. With ``free_size`` it takes any height and width, and the
    program must do so, too.

    Raises:
        InputError: it cannot be written as ONNX, or not with this opset.
        ProofError: the ONNX is not valid, or not self-contained.
    """
    names = input_names(model, example), output_names(model, example)
    translated = _translated(program, model, example, names, opset, free_size)
    written = translated.opset_imports.get("")
    if written != opset:
        raise InputError(
            f"opset must be one that torch can write for {type(model).__name__}; asked for "
            f"{opset}, torch wrote {written}: ask for that"
        )
    name_weights(translated)
    pad_average_pools(translated)
    clear_notes(translated)
    proto = ir.to_proto(translated)
    require_sound(proto, names)
    return proto


def _translated(
    program: ExportedProgram, model: nn.Module, example: Inputs, names: Names, opset: int,
    free_size: bool,
) -> ir.Model:  # fmt: skip
    """Return the program as ONNX or, where that fails, the network as ONNX."""
    translate = partial(
        torch.onnx.export,
        dynamo=True,
        input_names=names[0],
        output_names=names[1],
        opset_version=opset,
        external_data=False,
        verbose=False,
    )
    with quiet():
        try:
            found = translate(program, (), dynamic_shapes=free_axes(example, free_size, named=True))
        except Exception:
            # tracing again takes time, but a network can ask if it is for ONNX, and do otherwise
            try:
                found = translate(
                    copy_to_trace(model, example), neutral_inputs(example),
                    dynamic_shapes=free_axes(example, free_size),
                )  # fmt: skip
            except Exception as error:  # the exporter raises many unrelated classes
                network, reason = type(model).__name__, deepest_cause(error)
                raise InputError(f"cannot export {network} to ONNX: {reason}") from error
    assert found is not None
    return found.model


def input_names(model: nn.Module, example: Inputs) -> list[str]:
    """Return "input" for an only input, else the names of the forward's own arguments."""
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
    """Return "output" for an only output, else names from the keys and places of the outputs.

    A copy of the model runs on the example. {"out": x, "aux": y} gives "out" and "aux", (x, y)
    gives "output_0" and "output_1".
    """
    with torch.no_grad():
        output = forward(evaluation_copy(model), example)
    if isinstance(output, Tensor):
        return ["output"]
    leaves, _ = _pytree.tree_flatten_with_path(output)
    names = [_output_name(path) for path, leaf in leaves if isinstance(leaf, Tensor)]
    taken = set(input_names(model, example))  # in an ONNX file no two values share a name
    return [f"{name}_output" if name in taken else name for name in names]


def _output_name(path: tuple[Any, ...]) -> str:
    text = "_".join(re.findall(r"\w+", _pytree.keystr(path)))
    return text if text and not text[0].isdigit() else f"output_{text}".rstrip("_")


def name_weights(model: ir.Model) -> None:
    """Change the ONNX: the factor of each linear layer is called "layer.weight.T".

    A linear layer on tokens becomes a product with its transposed weight. PyTorch's exporter gives
    that value no telling name, but a note at the product names the layer.
    """
    weights = model.graph.initializers
    for node in model.graph:
        scopes = node.metadata_props.get(NAME_SCOPES)
        factor = node.inputs[1] if node.op_type == "MatMul" and scopes else None
        called = factor.name or "" if factor else ""
        if factor is None or called not in weights or called.endswith(NAMED):
            continue
        # the network's own name, those of its parts down to the layer, and the operation's
        layers: list[str] = ast.literal_eval(scopes or "")[1:-1]
        name = f"{layers[-1] if layers else ''}{TRANSPOSED_WEIGHT}"
        if layers and name not in weights:
            factor.name = name


def pad_average_pools(model: ir.Model) -> None:
    """Change the ONNX: each ``ceil_mode`` of an average pool becomes padding at the far end.

    The values are the same: a pool does not count the cells beyond the edge either way. A pool
    whose input has no fixed size, or that counts padding of its own, stays as it is.
    """
    for node in model.graph:
        shape = node.inputs[0].shape if node.op_type == "AveragePool" and node.inputs[0] else None
        sizes = [size for size in shape[2:] if isinstance(size, int)] if shape else []
        if shape is None or len(sizes) != len(shape) - 2:
            continue
        old = {name: attribute.value for name, attribute in node.attributes.items()}
        for name, value in _without_ceil_mode(old, sizes).items():
            if value != old.get(name):
                node.attributes.add(ir.convenience.convert_attribute(name, value))


def _without_ceil_mode(attributes: Mapping[str, Any], sizes: Sequence[int]) -> Mapping[str, Any]:
    """Return the same pool without ``ceil_mode``, or the same attributes where that cannot be."""
    dilated = any(dilation != 1 for dilation in attributes.get("dilations", ()))
    automatic = attributes.get("auto_pad", "NOTSET") != "NOTSET"
    if not attributes.get("ceil_mode") or dilated or automatic:
        return attributes
    kernel, axes = attributes["kernel_shape"], len(sizes)
    strides, pads = attributes.get("strides", [1] * axes), attributes.get("pads", [0] * 2 * axes)
    before, after = pads[:axes], pads[axes:]
    over = [_overhang(*axis) for axis in zip(sizes, kernel, strides, before, after, strict=True)]
    if not any(over):
        return {**attributes, "ceil_mode": 0}
    if any(pads) and attributes.get("count_include_pad"):
        return attributes  # its own padding is counted, and the overhang is not
    padded = [*before, *(pad + more for pad, more in zip(after, over, strict=True))]
    return {**attributes, "ceil_mode": 0, "count_include_pad": 0, "pads": padded}


def _overhang(size: int, kernel: int, stride: int, before: int, after: int) -> int:
    """Return by how much the last window reaches beyond the padded input, along one axis."""
    windows = -(-(size + before + after - kernel) // stride) + 1
    if (windows - 1) * stride >= size + before:
        windows -= 1  # none begins beyond the input
    return max(0, (windows - 1) * stride + kernel - (size + before + after))


def clear_notes(model: ir.Model) -> None:
    """Change the ONNX: all notes go, since they name source files by their local paths."""
    ClearMetadataAndDocStringPass()(model)
    model.metadata_props.clear()
    graph = model.graph
    outputs = (node.outputs for node in ir.traversal.RecursiveGraphIterator(graph))
    for values in (graph.inputs, graph.initializers.values(), *outputs):
        for value in values:
            value.metadata_props.clear()
            value.doc_string = None


def require_sound(proto: onnx.ModelProto, names: Names) -> None:
    """Refuse ONNX that is not valid, or does not have these inputs and outputs of any batch size.

    Raises:
        InputError: its inputs or outputs are others, or of a fixed batch size.
        ProofError: it is not valid, or does not hold all of its weights.
    """
    if any(uses_external_data(tensor) for tensor in proto.graph.initializer):
        raise ProofError("the ONNX file must hold its weights; some are in another file")
    for wanted, values in zip(names, (proto.graph.input, proto.graph.output), strict=True):
        if [value.name for value in values] != wanted:
            found = ", ".join(value.name for value in values)
            raise InputError(
                f"the exported network must have {', '.join(wanted)}; got {found}: an input that "
                "is not used, or a value that is no tensor, cannot be exported"
            )
        for value in values:
            first = value.type.tensor_type.shape.dim[:1]
            if not first or first[0].dim_param != BATCH:
                raise InputError(
                    f"a network must take any batch size to be exported; the first dimension of "
                    f"its {value.name} is fixed"
                )
    try:
        onnx.checker.check_model(proto, full_check=True)
    except Exception as error:
        raise ProofError(f"the ONNX file is not valid: {deepest_cause(error)}") from error
