"""The inputs of a layer as columns: one column for each weight, one row for each output position.

Neighbouring positions of an image are much alike. Where there are many more rows than a least
squares problem needs, a few positions of every image serve as well as all of them, at less cost.
"""

from collections.abc import Iterator

import torch
from torch import Tensor, nn
from torch.nn import functional

from slimnet.load import input_padding

SLICE_ELEMENTS = 2**24
"""Unfolded inputs take 64 MiB at once. This is no option: another value takes other positions of
the images, and changes results."""

ROWS_PER_COLUMN = 64
"""A guess. Gram matrices of small layers are then within 10 % of the exact ones (a test)."""

TRIAL_SIZES = (6, 7)
"""An even and an odd size of the output: padding of a layer's own often depends on that."""

ROUNDING = 1e-4
"""Share of the largest output; float32 rounds to 1e-7, and a sum of 6,000 products to less."""

GOLDEN = 0.6180339887498949
"""Fractional part of the golden ratio: its multiples spread most evenly over an interval."""


def kernel_size(module: nn.Module) -> int:
    """Return how many columns one input channel has."""
    return module.kernel_size[0] * module.kernel_size[1] if isinstance(module, nn.Conv2d) else 1


def image_slices(module: nn.Module, inputs: Tensor) -> Iterator[slice]:
    """Yield slices of images whose unfolded inputs have at most SLICE_ELEMENTS elements."""
    per_image = inputs[0].numel() * kernel_size(module)
    images = max(1, SLICE_ELEMENTS // per_image)
    for start in range(0, len(inputs), images):
        yield slice(start, start + images)


class Positions:
    """Chooses positions of a layer's output, other ones for each slice of images.

    ``images`` is how many there are in all slices together.
    """

    def __init__(self, images: int, rows_per_column: int = ROWS_PER_COLUMN) -> None:
        self._images, self._rows_per_column = images, rows_per_column
        self._slices = 0

    def choose(self, module: nn.Module, output: Tensor) -> Tensor | None:
        """Return the positions (chosen,) int64 of the layer's output to take of the next slice.

        None stands for all of them; linear layers always give all.
        """
        if isinstance(module, nn.Linear):
            return None
        assert isinstance(module.weight, Tensor)
        columns = module.weight[0].numel()
        wanted = -(-self._rows_per_column * columns // self._images)
        positions = output.shape[2] * output.shape[3]
        self._slices += 1
        if wanted >= positions:
            return None
        # evenly spread, and shifted from slice to slice, so that every position is taken at times
        start = GOLDEN * self._slices % 1
        return (((torch.arange(wanted) / wanted + start) % 1) * positions).long()


def unfold(module: nn.Module, inputs: Tensor, positions: Tensor | None = None) -> Tensor:
    """Return the numbers that the layer multiplies with its weights, (groups, columns, rows).

    Rows are images outermost, then positions of the output in row-major order; with ``positions``
    (chosen,) only those. Linear layers have one position for each vector, and give all.
    """
    if isinstance(module, nn.Linear):
        return inputs.reshape(1, -1, inputs.shape[-1]).transpose(1, 2)
    assert isinstance(module, nn.Conv2d)
    mode = "constant" if module.padding_mode == "zeros" else module.padding_mode
    windows = functional.pad(inputs, input_padding(module, inputs.shape[2:]), mode=mode)
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


@torch.no_grad()
def multiplies(module: nn.Linear | nn.Conv2d) -> bool:
    """Tell whether the layer's output is its weight times ``unfold`` of its input, plus its bias.

    Torch's own layers need no trial. A subclass may compute another weight, or pad by itself: it
    runs on noise of two sizes.
    """
    if type(module) in (nn.Linear, nn.Conv2d) and "weight" in module._parameters:
        return True
    try:
        return all(_multiplies(module, size) for size in TRIAL_SIZES)
    except Exception:  # the layer's own code may raise anything
        return False


def _multiplies(module: nn.Linear | nn.Conv2d, size: int) -> bool:
    shape = [size, module.in_features] if isinstance(module, nn.Linear) else [2]
    if isinstance(module, nn.Conv2d):
        reach = [(k - 1) * d for k, d in zip(module.kernel_size, module.dilation, strict=True)]
        shape += [module.in_channels, *(size + one for one in reach)]
    weight, bias = module.weight, module.bias
    generator = torch.Generator().manual_seed(size)
    noise = torch.randn(shape, generator=generator).to(weight)
    columns = unfold(module, noise)
    found = (weight.reshape(len(columns), -1, columns.shape[1]) @ columns).flatten(0, 1)
    found = found if bias is None else found + bias[:, None]
    expected = output_rows(module, module(noise))
    scale = float(expected.abs().max())
    return found.shape == expected.shape and torch.allclose(found, expected, 0, ROUNDING * scale)


def add_constant(columns: Tensor) -> Tensor:
    """Return the columns with a constant 1 as the last one."""
    return torch.cat([columns, torch.ones_like(columns[:, :1])], 1)
