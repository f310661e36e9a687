"""Inputs for networks without data: of a given or guessed shape, or as ONNX files ask for."""

import itertools
import math
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import onnx
import torch
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd, _ConvTransposeNd
from torch.utils._pytree import tree_leaves

from slimnet.errors import InputError
from slimnet.load import attributes_kept, first_line, on_shapes
from slimnet.records import Inputs, OnnxInput, Shape, Shapes

IMAGES = 2  # one image alone could not show which axis is the batch
SMALLER_SIZE = 64  # pixels; a guess: torchvision's networks still run on it
TORCHVISION_SIZES = (224, 299, 384, 512, 518)  # those of its weights
INCEPTION_SIZES = (299,)
OTHER_SIZES = (32, 28, 64, 224)  # CIFAR, MNIST, Tiny ImageNet, ImageNet
MAX_TYPED = 4  # inputs that may be whole numbers, each twice as many tries; a guess
MAX_ELEMENTS = 2**26  # of one input, 256 MiB; larger ones are most often a typing error
RULE = "the input shape is that of one input, whole numbers of 1 or more such as 3,224,224"


def parse_shape(given: str | Sequence[str] | None) -> Shapes | None:
    """Return the shape that a user wrote as 3,224,224, or several; None where none was.

    Raises:
        InputError: it is not whole numbers between commas.
    """
    texts = (given,) if isinstance(given, str) else tuple(given or ())
    try:
        shapes = tuple(tuple(int(part) for part in text.split(",")) for text in texts)
    except ValueError:
        raise InputError(f"{RULE}; got {' and '.join(map(repr, texts))}") from None
    return (shapes[0] if len(shapes) == 1 else shapes) if shapes else None


def shapes_of(inputs: Inputs) -> Shapes:
    """Return the shape of one input without the batch axis, or those of several."""
    if isinstance(inputs, Tensor):
        return tuple(inputs.shape[1:])
    return tuple(tuple(tensor.shape[1:]) for tensor in inputs)


def made_up_inputs(
    model: nn.Module, shape: Sequence[int] | Sequence[Sequence[int]] | None, seed: int = 0
) -> Inputs:
    """Return noise (2, *shape) that the model accepts; the model is not changed.

    Of several shapes it is noise for each. A network that takes no decimal numbers gets whole ones,
    0 and 1. Without a shape, the first usual one for the network's first layer is taken that runs.

    Raises:
        InputError: the model does not run on the shape, or no shape could be guessed.
    """
    if shape is not None:
        noise = tuple(_noise(require_shape(each), seed) for each in _each(shape))
        failures = []
        for given in _in_types(noise):
            failures.append(_failure(model, given))
            if failures[-1] is None:
                return given
        made = " and ".join(str(tuple(tensor.shape)) for tensor in noise)
        raise InputError(
            f"the network fails on inputs of the shape {made}: {failures[0]}; give the shape that "
            "it was trained on, without the batch axis, as in --input-shape 3,224,224, and one for "
            "each input"
        )
    tried = []
    for guess in usual_shapes(model):
        inputs = _noise(guess, seed)
        if _failure(model, inputs) is None:
            return inputs
        tried.append(",".join(map(str, guess)))
    reason = "its first layer does not show it"
    if tried:
        reason = f"it does not run on inputs of {' or '.join(tried)}"
    raise InputError(
        f"the input shape of this network cannot be guessed: {reason}; give it without the batch "
        "axis, as in --input-shape 3,224,224, and one for each input"
    )


def _each(shape: Sequence[int] | Sequence[Sequence[int]]) -> Sequence[Any]:
    """Return the shapes of all inputs, also where it is a shape of the only one."""
    several = isinstance(shape, Sequence) and any(isinstance(one, Sequence) for one in shape)
    return shape if several else (shape,)


def _in_types(noise: tuple[Tensor, ...]) -> Iterator[Inputs]:
    """Yield inputs of decimal numbers, and then with whole numbers in place of some or all."""
    several = noise[:MAX_TYPED]
    for whole in itertools.product((False, True), repeat=len(several)):
        typed = ((x > 0).long() if one else x for one, x in zip(whole, several, strict=True))
        made = (*typed, *noise[MAX_TYPED:])
        yield made[0] if len(made) == 1 else made


def smaller_inputs(model: nn.Module, inputs: Inputs) -> Inputs:
    """Return a corner of the images if the model gives outputs of the same shape; else the inputs.

    The model is not changed. Which channels go together does not depend on the size of an image.
    """
    size = SMALLER_SIZE
    if not isinstance(inputs, Tensor) or inputs.ndim != 4 or min(inputs.shape[2:]) <= size:
        return inputs
    smaller = inputs[:, :, :size, :size].contiguous()
    if _failure(model, smaller) is None:
        whole, part = (
            on_shapes(_output_shapes, model, x[:1], harmless=True) for x in (inputs, smaller)
        )
        if len(whole) == 1 and whole == part:
            return smaller
    return inputs


def _output_shapes(model: nn.Module, inputs: Inputs) -> list[Shape]:
    with torch.no_grad(), attributes_kept(model):
        output = model(inputs) if isinstance(inputs, Tensor) else model(*inputs)
    return [tuple(leaf.shape) for leaf in tree_leaves(output) if isinstance(leaf, Tensor)]


def usual_shapes(model: nn.Module) -> Iterator[Shape]:
    """Yield shapes (channels, size, ...) or (features,) that a network's first layer suggests."""
    kinds = (_ConvNd, nn.Linear, nn.Embedding)
    first = next((module for module in model.modules() if isinstance(module, kinds)), None)
    if isinstance(first, nn.Linear):
        yield (first.in_features,)
    elif isinstance(first, _ConvNd) and not isinstance(first, _ConvTransposeNd):
        for size in _usual_sizes(model):
            yield (first.in_channels, *([size] * len(first.kernel_size)))


def _usual_sizes(model: nn.Module) -> Sequence[int]:
    kind = type(model)
    if not kind.__module__.startswith("torchvision.models"):
        return OTHER_SIZES
    return INCEPTION_SIZES if kind.__name__ == "Inception3" else TORCHVISION_SIZES


def require_shape(shape: Sequence[int]) -> Shape:
    """Return the shape of one input as a tuple.

    Raises:
        InputError: it is not whole numbers of 1 or more, or too many elements.
    """
    numbers = tuple(shape) if isinstance(shape, Sequence) else ()
    if not numbers or not all(type(number) is int and number > 0 for number in numbers):
        raise InputError(f"{RULE}; got {shape!r}")
    if math.prod(numbers) > MAX_ELEMENTS:
        raise InputError(
            f"one input may have {MAX_ELEMENTS:,} elements at most; got the shape {numbers}: "
            "give a smaller one"
        )
    return numbers


def _noise(shape: Shape, seed: int) -> Tensor:
    return torch.randn(IMAGES, *shape, generator=torch.Generator().manual_seed(seed))


def _failure(model: nn.Module, inputs: Inputs) -> str | None:
    """Return the error of the model on these inputs, or None; it is not changed.

    Raises:
        InputError: it runs, but no output has one entry an image.
    """
    try:
        with torch.no_grad(), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            shapes = on_shapes(_output_shapes, model, inputs, harmless=True)
    except Exception as error:  # a network's own code may raise anything
        return first_line(error)
    if any(shape[:1] == (IMAGES,) for shape in shapes):
        return None
    raise InputError(
        "a network gives one entry an image along the first dimension of its output; this one "
        f"gives {', '.join(map(str, shapes[:3])) or 'no tensor'} for {IMAGES} images. Of a "
        "network for detection take the part that makes the features, such as model.backbone"
    )


Axes = tuple[int | None, ...]


def onnx_inputs(path: Path) -> tuple[OnnxInput, ...]:
    """Return the inputs of an ONNX file, in its order.

    Raises:
        InputError: it is not an ONNX file, or has inputs other than tensors with a batch axis.
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


def common_inputs(
    original: Path, slim: Path, shape: Sequence[int] | Sequence[Sequence[int]] | None
) -> tuple[OnnxInput, ...]:
    """Return the inputs of both files, by position; only a batch axis may be of any size.

    ``shape`` is that of one input, or one for each, for axes that the files leave open.

    Raises:
        InputError: the inputs differ, or an axis stays open; or see ``onnx_inputs``.
    """
    first, second = onnx_inputs(original), onnx_inputs(slim)
    if [(i.dtype, len(i.shape)) for i in first] == [(i.dtype, len(i.shape)) for i in second]:
        both = zip(first, second, strict=True)
        joined = [_joined(one.shape, other.shape) for one, other in both]
        given = [None] if shape is None else list(_each(shape))
        given *= len(first) if len(given) == 1 else 1  # one shape is that of every input
        if len(given) != len(first):
            raise InputError(f"{original} takes {len(first)} inputs; got {len(given)} input shapes")
        if all(axes is not None for axes in joined):
            return tuple(
                OnnxInput(one.name, one.dtype, _filled(one.name, axes, wanted))
                for one, axes, wanted in zip(first, joined, given, strict=True)
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
