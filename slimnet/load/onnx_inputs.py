"""What ONNX files take, read from the files, and inputs of that kind made of noise."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import onnx
import torch
from torch import Tensor

from slimnet.errors import InputError
from slimnet.load.importing import first_line
from slimnet.load.input_shape import IMAGES, require_shape
from slimnet.records import OnnxInput

Axes = tuple[int | None, ...]


def onnx_inputs(path: Path) -> tuple[OnnxInput, ...]:
    """Return what an ONNX file takes, in its order.

    Raises:
        InputError: it is no ONNX file, or takes something other than tensors with a batch axis.
    """
    try:
        graph = onnx.load(str(path), load_external_data=False).graph
    except Exception as error:  # whatever protobuf raises
        raise InputError(f"{path} cannot be read as ONNX: {first_line(error)}") from error
    weights = {initializer.name for initializer in graph.initializer}
    found = tuple(_input(path, value) for value in graph.input if value.name not in weights)
    if not found:
        raise InputError(f"{path} is not an ONNX network: it takes no input")
    return found


def _input(path: Path, value: onnx.ValueInfoProto) -> OnnxInput:
    kind = value.type.tensor_type
    if not kind.HasField("shape") or not kind.shape.dim:
        raise InputError(
            f"inputs are tensors whose first axis is the batch; {value.name} of {path} is not"
        )
    axes = tuple(dimension.dim_value or None for dimension in kind.shape.dim)
    dtype = onnx.helper.tensor_dtype_to_np_dtype(kind.elem_type).name
    if getattr(torch, dtype, None) is None:
        raise InputError(f"inputs of the type {dtype} cannot be made up; {value.name} of {path} is")
    return OnnxInput(value.name, dtype, axes)


def common_inputs(original: Path, slim: Path, shape: Sequence[int] | None) -> tuple[OnnxInput, ...]:
    """Return what both files take, by position; only a batch axis may be left of any size.

    ``shape`` is that of one input, for axes that the files leave open.

    Raises:
        InputError: the files take different things, or an axis stays open; or see ``onnx_inputs``.
    """
    first, second = onnx_inputs(original), onnx_inputs(slim)
    if [(i.dtype, len(i.shape)) for i in first] == [(i.dtype, len(i.shape)) for i in second]:
        both = zip(first, second, strict=True)
        joined = [_joined(one.shape, other.shape) for one, other in both]
        if all(axes is not None for axes in joined):
            return tuple(
                OnnxInput(one.name, one.dtype, _filled(one.name, axes, shape))
                for one, axes in zip(first, joined, strict=True)
                if axes is not None
            )
    raise InputError(
        f"two networks can be compared on the same inputs only; {original} takes "
        f"{_shown(first)}, and {slim} takes {_shown(second)}"
    )


def _joined(one: Axes, other: Axes) -> Axes | None:
    """Return the axes that fit both, or None where none do."""
    if any(a != b for a, b in zip(one, other, strict=True) if a and b):
        return None
    return tuple(a or b for a, b in zip(one, other, strict=True))


def _filled(name: str, axes: Axes, shape: Sequence[int] | None) -> Axes:
    if shape is None:
        if None in axes[1:]:
            raise InputError(
                f"the shape of one {name} is left open by the file, {_axes(axes[1:])}: give it "
                "without the batch axis, as in --input-shape 3,224,224"
            )
        return axes
    joined = _joined(axes[1:], require_shape(shape)) if len(shape) == len(axes) - 1 else None
    if joined is None:
        given = ",".join(map(str, shape))
        raise InputError(f"one {name} has the shape {_axes(axes[1:])}; got {given}")
    return (axes[0], *joined)


def made_up_onnx_inputs(
    inputs: Sequence[OnnxInput], seed: int, images: int = IMAGES
) -> tuple[Tensor, ...]:
    """Return rows for each input, (images, ...): noise, or zeros where it takes whole numbers."""
    generator, made = torch.Generator().manual_seed(seed), []
    for wanted in inputs:
        axes = [axis or 1 for axis in wanted.shape[1:]]
        kind: torch.dtype = getattr(torch, wanted.dtype)
        noise = torch.randn(images, *axes, generator=generator)
        made.append(noise.to(kind) if kind.is_floating_point else torch.zeros_like(noise).to(kind))
    return tuple(made)


def _shown(inputs: Sequence[OnnxInput]) -> str:
    return " and ".join(f"{i.name} {i.dtype} ({_axes(i.shape)})" for i in inputs)


def _axes(axes: Axes) -> str:
    return ",".join("?" if axis is None else str(axis) for axis in axes)
