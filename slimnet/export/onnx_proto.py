"""A network as ONNX in memory: translated, sound, and free of anything about this machine."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import onnx
import torch
from torch.export import ExportedProgram

from slimnet.errors import InputError, ProofError
from slimnet.export.names import name_weights
from slimnet.export.pools import pad_average_pools
from slimnet.export.tracing import BATCH, batch_shapes, first_line, quiet
from slimnet.records import Inputs

Names = tuple[list[str], list[str]]
NOTES = ("doc_string", "metadata_props")


def translate(
    program: ExportedProgram, example: Inputs, names: Names, opset: int, network: str
) -> onnx.ModelProto:
    """Return what torch.export made of a network as ONNX; the same program gives the same.

    Raises:
        InputError: the network, which is called ``network`` then, or opset cannot be written.
        ProofError: what came of it is not valid, or not self-contained.
    """
    try:
        proto = _translated(program, example, names, opset)
    except Exception as error:  # the exporter raises many unrelated classes
        raise InputError(f"cannot export {network} to ONNX: {first_line(error)}") from error
    written = [entry.version for entry in proto.opset_import if entry.domain in ("", "ai.onnx")]
    if written != [opset]:
        given = ", ".join(map(str, written))
        raise InputError(
            f"opset must be one that torch can write for {network}; asked for {opset}, "
            f"torch wrote {given}: ask for that"
        )
    name_weights(proto)
    pad_average_pools(proto)
    clear_notes(proto)
    require_sound(proto, names)
    return proto


def _translated(
    program: ExportedProgram, example: Inputs, names: Names, opset: int
) -> onnx.ModelProto:
    with quiet():
        found = torch.onnx.export(
            program,
            (),
            dynamo=True,
            dynamic_shapes=batch_shapes(example),
            input_names=names[0],
            output_names=names[1],
            opset_version=opset,
            external_data=False,
            verbose=False,
        )
        if found is None:
            raise RuntimeError("the exporter returned nothing")
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
