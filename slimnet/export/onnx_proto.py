"""A network as ONNX in memory: translated, sound, and free of anything about this machine."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Any

import onnx
import torch
from torch import nn
from torch.export import ExportedProgram

from slimnet.errors import InputError, ProofError
from slimnet.export.names import input_names, name_weights, output_names
from slimnet.export.pools import pad_average_pools
from slimnet.export.tracing import (
    BATCH,
    batch_shapes,
    evaluation_copy,
    first_line,
    neutral_inputs,
    quiet,
)
from slimnet.records import Inputs

Names = tuple[list[str], list[str]]
NOTES = ("doc_string", "metadata_props")


def to_onnx(
    program: ExportedProgram, model: nn.Module, example: Inputs, opset: int
) -> onnx.ModelProto:
    """Return a network as ONNX: its program, or else itself; changes neither.

    The same network gives the same.

    Raises:
        InputError: it cannot be written as ONNX, or not with this opset.
        ProofError: what came of it is not valid, or not self-contained.
    """
    names = input_names(model, example), output_names(model, example)
    proto = _translated(program, model, example, names, opset)
    written = [entry.version for entry in proto.opset_import if entry.domain in ("", "ai.onnx")]
    if written != [opset]:
        given = ", ".join(map(str, written))
        raise InputError(
            f"opset must be one that torch can write for {type(model).__name__}; asked for "
            f"{opset}, torch wrote {given}: ask for that"
        )
    name_weights(proto)
    pad_average_pools(proto)
    clear_notes(proto)
    require_sound(proto, names)
    return proto


def _translated(
    program: ExportedProgram, model: nn.Module, example: Inputs, names: Names, opset: int
) -> onnx.ModelProto:
    translate = partial(
        torch.onnx.export,
        dynamo=True,
        dynamic_shapes=batch_shapes(example),
        input_names=names[0],
        output_names=names[1],
        opset_version=opset,
        external_data=False,
        verbose=False,
    )
    with quiet():
        try:
            found = translate(program, ())
        except Exception:
            # tracing again takes time, but a network can ask if it is for ONNX, and do otherwise
            try:
                found = translate(evaluation_copy(model), neutral_inputs(example))
            except Exception as error:  # the exporter raises many unrelated classes
                network, reason = type(model).__name__, first_line(error)
                raise InputError(f"cannot export {network} to ONNX: {reason}") from error
    assert found is not None
    return found.model_proto


def clear_notes(proto: onnx.ModelProto) -> None:
    """Change a file to hold no notes, which name source files with their local paths."""
    for message in _messages(proto):
        for field in NOTES:
            if field in message.DESCRIPTOR.fields_by_name:
                message.ClearField(field)


def _messages(message: Any) -> Iterator[Any]:
    """Yield a protobuf message and all that it holds, however deep."""
    yield message
    for field, value in message.ListFields():
        if field.message_type is not None:
            for child in [value] if hasattr(value, "ListFields") else value:
                yield from _messages(child)


def require_sound(proto: onnx.ModelProto, names: Names) -> None:
    """Refuse a file that is not valid and whole, or not of these inputs and outputs of any batch.

    Raises:
        InputError: its inputs or outputs are others, or of a fixed batch size.
        ProofError: it is not valid, or holds not all of its weights.
    """
    if any(
        isinstance(message, onnx.TensorProto) and message.data_location == message.EXTERNAL
        for message in _messages(proto)
    ):
        raise ProofError("the ONNX file must hold its weights; some are in another file")
    for expected, values in zip(names, (proto.graph.input, proto.graph.output), strict=True):
        if [value.name for value in values] != expected:
            found = ", ".join(value.name for value in values)
            raise InputError(
                f"the exported network must have {', '.join(expected)}; got {found}: an input "
                "that is not used, or a value that is no tensor, cannot be exported"
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
        raise ProofError(f"the ONNX file is not valid: {first_line(error)}") from error
