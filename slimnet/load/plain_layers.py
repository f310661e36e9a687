"""The two layers that torch lacks, for networks that pad or scale by code of their own."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional


class SamePaddedConv2d(nn.Conv2d):
    """A convolution that pads to ceil(size / stride) rows and columns, as TensorFlow's "SAME".

    ``padding`` is "same". Zeros stand around the input; an odd one stands at the end.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.padding = "same"  # torch refuses it beside a stride

    def forward(self, input: Tensor) -> Tensor:
        """Return (images, out_channels, rows, columns)."""
        padded = functional.pad(input, input_padding(self, input.shape[2:]))
        return functional.conv2d(
            padded, self.weight, self.bias, self.stride, 0, self.dilation, self.groups
        )


class FixedNorm(nn.BatchNorm2d):
    """A scale and a shift for each channel, as a batch norm that never looks at a batch.

    It takes inputs (images, channels, ...) with any number of axes, and stays in eval mode.
    """

    def __init__(self, scale: Tensor, shift: Tensor) -> None:
        super().__init__(len(scale), eps=0.0, momentum=0.0, dtype=scale.dtype)
        self.weight, self.bias = nn.Parameter(scale), nn.Parameter(shift)
        self.train(False)

    def train(self, mode: bool = True) -> FixedNorm:
        """Stay in eval mode, and return itself."""
        return super().train(False)

    def _check_input_dim(self, input: Tensor) -> None:
        pass


def input_padding(layer: nn.Module, sizes: Sequence[int]) -> list[int]:
    """Return how much a convolution pads inputs of these sizes, as ``functional.pad`` takes it.

    The last axis stands first, with two numbers for each: before and after.
    """
    if layer.padding != "same":
        return list(layer._reversed_padding_repeated_twice)  # type: ignore[arg-type]
    pads: list[int] = []
    for size, kernel, stride, dilation in reversed(
        list(zip(sizes, layer.kernel_size, layer.stride, layer.dilation, strict=True))  # type: ignore[arg-type]
    ):
        steps = (size + stride - 1) // stride - 1
        missing = torch.sym_max(steps * stride + (kernel - 1) * dilation + 1 - size, 0)
        pads += [missing // 2, missing - missing // 2]
    return pads
