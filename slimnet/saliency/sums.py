"""Sums over the positions of a feature map: what the metrics read of one call of a module."""

from __future__ import annotations

from collections.abc import Callable, Collection

import torch
from torch import Tensor

EVERY_SUM = (
    "elements",
    "count",
    "positive",
    "activation",
    "absolute",
    "square",
    "gradient",
    "product",
)
OF_GRADIENTS = frozenset({"gradient", "product"})


def sums_of(
    activation: Tensor, gradient: Tensor | None, axis: int, asked: Collection[str]
) -> dict[str, Tensor]:
    """Return what one call of a module adds to the statistics, each (images, channels) float64.

    An image is an entry of the first axis; see ``by_image`` where it is not. Without a gradient
    its sums are zeros. See ``LayerStatistics`` for what each of them is.
    """
    over = [d for d in range(1, activation.ndim) if d != axis]
    images, channels = activation.shape[0], activation.shape[axis]

    def total(values: Tensor) -> Tensor:
        return values.sum(over).double() if over else values.double()

    def count() -> Tensor:
        # signs are -1, 0 and 1: their sums give both counts, several times faster than comparisons
        return total(activation.sign().abs_())

    def square() -> Tensor:
        # about a point near the mean, then moved to zero: float32 would lose a small variance
        count, sums = elements(), total(activation)
        centre = (sums / count).to(activation.dtype)
        shape = [n if d in (0, axis) else 1 for d, n in enumerate(activation.shape)]
        around = total((activation - centre.reshape(shape)).square_())
        return around + centre.double() * (2 * sums - count * centre.double())

    def elements() -> Tensor:
        each = activation[0].numel() // channels
        return torch.full((images, channels), each, dtype=torch.float64)

    nothing = torch.zeros(images, channels, dtype=torch.float64)
    ways: dict[str, Callable[[], Tensor]] = {
        "elements": elements,
        "count": count,
        "positive": lambda: (count() + total(activation.sign())) / 2,
        "activation": lambda: total(activation),
        "absolute": lambda: total(activation.abs()),
        "square": square,
        "gradient": lambda: nothing if gradient is None else total(gradient),
        "product": lambda: nothing if gradient is None else total(activation * gradient),
    }
    return {name: ways[name]() for name in asked if name in ways}


def by_image(rows: Tensor, images: int) -> Tensor:
    """Return sums (rows, channels) as (images, channels), whatever stands in the first axis.

    Networks put parts of images there, such as windows, the first image's before all others; or
    tokens, or what no image has had a part in: then each image gets an equal share of it.
    """
    if len(rows) == images:
        return rows
    if len(rows) % images == 0:
        return rows.reshape(images, -1, rows.shape[1]).sum(1)
    return (rows.sum(0) / images).expand(images, -1)
