"""What a layer multiplies with its weights, as columns: one row for each position that it reads.

Neighbouring positions of one image are much alike, so where there are many more rows than a least
squares problem needs, a few positions of every image say as much as all of them, at less cost.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor, nn
from torch.nn import functional

MOST_ELEMENTS = 2**24
ROWS_PER_COLUMN = 64
GOLDEN = 0.6180339887498949


def kernel_size(module: nn.Module) -> int:
    """Return how many columns one input channel has."""
    return module.kernel_size[0] * module.kernel_size[1] if isinstance(module, nn.Conv2d) else 1


def image_slices(module: nn.Module, inputs: Tensor) -> Iterator[slice]:
    """Yield slices of images so small that their unfolded inputs fit in memory."""
    per_image = inputs[0].numel() * kernel_size(module)
    images = max(1, MOST_ELEMENTS // per_image)
    for start in range(0, len(inputs), images):
        yield slice(start, start + images)


class Positions:
    """Which positions of a layer's output to take from each slice of images, ever other ones.

    ``images`` is how many there are in all; None takes every position.
    """

    def __init__(self, images: int | None) -> None:
        self._images = images
        self._slices = 0

    def choose(self, module: nn.Module, output: Tensor) -> Tensor | None:
        """Return the positions (chosen,) int64 of the layer's output to take of the next slice.

        None is all of them, which are always taken of linear layers.
        """
        if self._images is None or isinstance(module, nn.Linear):
            return None
        assert isinstance(module.weight, Tensor)
        columns = module.weight[0].numel()
        wanted = -(-ROWS_PER_COLUMN * columns // self._images)
        positions = output.shape[2] * output.shape[3]
        self._slices += 1
        if wanted >= positions:
            return None
        # evenly spread, and moved on by the golden ratio from slice to slice, to miss none for long
        start = GOLDEN * self._slices % 1
        return (((torch.arange(wanted) / wanted + start) % 1) * positions).long()


def unfold(module: nn.Module, inputs: Tensor, positions: Tensor | None = None) -> Tensor:
    """Return what the layer multiplies with its weights, (groups, columns, rows).

    Rows are images outermost, then positions of the output, row by row of it; with ``positions``
    (chosen,) only those. Linear layers have one position for each vector, and give all.
    """
    if isinstance(module, nn.Linear):
        return inputs.reshape(1, -1, inputs.shape[-1]).transpose(1, 2)
    assert isinstance(module, nn.Conv2d)
    mode = "constant" if module.padding_mode == "zeros" else module.padding_mode
    padded = functional.pad(inputs, module._reversed_padding_repeated_twice, mode=mode)
    windows = padded
    for axis in (0, 1):
        kernel, dilation = module.kernel_size[axis], module.dilation[axis]
        windows = windows.unfold(2 + axis, (kernel - 1) * dilation + 1, module.stride[axis])
    windows = windows[..., :: module.dilation[0], :: module.dilation[1]]
    if positions is None:
        chosen = windows.flatten(2, 3)
    else:
        width = windows.shape[3]
        chosen = windows[:, :, positions // width, positions % width]
    # (images, channels, positions, kernel, kernel) to channels and kernel first
    columns = chosen.permute(1, 3, 4, 0, 2).reshape(inputs.shape[1], kernel_size(module), -1)
    return columns.reshape(module.groups, -1, columns.shape[2])


def output_rows(module: nn.Module, output: Tensor, positions: Tensor | None = None) -> Tensor:
    """Return a layer's output as (channels, rows), with the rows of ``unfold``."""
    if isinstance(module, nn.Linear):
        return output.reshape(-1, output.shape[-1]).T
    maps = output.flatten(2)
    if positions is not None:
        maps = maps[:, :, positions]
    return maps.transpose(0, 1).flatten(1)


def add_constant(columns: Tensor) -> Tensor:
    """Return the columns with a constant 1 as the last one."""
    return torch.cat([columns, torch.ones_like(columns[:, :1])], 1)
