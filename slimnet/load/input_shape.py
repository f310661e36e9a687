"""Inputs for a network that comes without data: noise, of a shape that is given or guessed."""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd, _ConvTransposeNd
from torch.utils._pytree import tree_leaves

from slimnet.errors import InputError
from slimnet.load.importing import first_line
from slimnet.load.without_data import on_shapes

Shape = tuple[int, ...]

IMAGES = 2
SMALLER_SIZE = 64
TORCHVISION_SIZES = (224, 299, 384, 512, 518)
INCEPTION_SIZES = (299,)
OTHER_SIZES = (32, 28, 64, 224)
MOST_ELEMENTS = 2**26
RULE = "the input shape is that of one input, whole numbers of 1 or more such as 3,224,224"


def parse_shape(text: str | None) -> Shape | None:
    """Return the shape that a user wrote as 3,224,224, or None where none was.

    Raises:
        InputError: it is not whole numbers between commas.
    """
    try:
        return None if text is None else tuple(int(part) for part in text.split(","))
    except ValueError:
        raise InputError(f"{RULE}; got {text!r}") from None


def made_up_inputs(model: nn.Module, shape: Sequence[int] | None, seed: int = 0) -> Tensor:
    """Return noise (2, *shape) that the model accepts; the model is not changed.

    Without a shape, usual ones for the network's first layer are tried; the first that runs wins.

    Raises:
        InputError: the shape is none, or the model does not run on it, or none could be guessed.
    """
    if shape is not None:
        inputs = _noise(require_shape(shape), seed)
        if failure := _failure(model, inputs):
            raise InputError(
                f"the network fails on inputs of the shape {tuple(inputs.shape)}: {failure}; give "
                "the shape that it was trained on, without the batch axis (--input-shape 3,224,224)"
            )
        return inputs
    tried = []
    for guess in usual_shapes(model):
        inputs = _noise(guess, seed)
        if _failure(model, inputs) is None:
            return inputs
        tried.append(",".join(map(str, guess)))
    told = (
        f"it does not run on inputs of {' or '.join(tried)}"
        if tried
        else "its first layer does not tell"
    )
    raise InputError(
        f"the input shape of this network cannot be guessed: {told}; give it without the batch "
        "axis, as in --input-shape 3,224,224"
    )


def smaller_inputs(model: nn.Module, inputs: Tensor) -> Tensor:
    """Return a corner of images, where that is all that the model needs; else the inputs.

    The model is not changed. What goes with a channel does not depend on the size of an image.
    """
    size = SMALLER_SIZE
    if inputs.ndim != 4 or min(inputs.shape[2:]) <= size:
        return inputs
    smaller = inputs[:, :, :size, :size].contiguous()
    if _failure(model, smaller) is None:
        whole, part = (
            on_shapes(_output_shapes, model, x[:1], harmless=True) for x in (inputs, smaller)
        )
        if len(whole) == 1 and whole == part:
            return smaller
    return inputs


def _output_shapes(model: nn.Module, inputs: Tensor) -> list[Shape]:
    with torch.no_grad():
        output = model(inputs)
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
    if math.prod(numbers) > MOST_ELEMENTS:
        raise InputError(
            f"one input may have {MOST_ELEMENTS:,} elements at most; got the shape {numbers}: "
            "give a smaller one"
        )
    return numbers


def _noise(shape: Shape, seed: int) -> Tensor:
    return torch.randn(IMAGES, *shape, generator=torch.Generator().manual_seed(seed))


def _failure(model: nn.Module, inputs: Tensor) -> str | None:
    """Return what the model says to such inputs, or None where it runs; it is not changed.

    Raises:
        InputError: it runs, but what it gives cannot belong to these images.
    """
    try:
        with torch.no_grad(), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            shapes = on_shapes(_output_shapes, model, inputs, harmless=True)
    except Exception as error:  # a network's own code may raise anything
        return first_line(error)
    if any(shape[:1] == (len(inputs),) for shape in shapes):
        return None
    raise InputError(
        "a network gives one entry an image along the first dimension of its output; this one "
        f"gives {', '.join(map(str, shapes[:3])) or 'no tensor'} for {len(inputs)} images. Of a "
        "network for detection take the part that makes the features, such as model.backbone"
    )
