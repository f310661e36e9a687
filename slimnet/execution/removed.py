"""Stand-ins for layers that have lost all of their outputs, or all of their inputs.

A layer without outputs gives no channels. A layer without inputs gives a constant: its bias. The
network's own code runs as before, since the shapes of both are those that the layer would give.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

# what the code of a network may read from a convolution or a linear layer
ATTRIBUTES = ("in_channels", "in_features", "kernel_size", "stride", "padding", "dilation",
              "output_padding", "transposed", "groups", "padding_mode",
              "_reversed_padding_repeated_twice")  # fmt: skip


class RemovedLayer(nn.Module):
    """In the place of a convolution or linear layer; it has the attributes of that layer."""

    out_channels: int
    kernel_size: tuple[int, ...]
    stride: tuple[int, ...]
    dilation: tuple[int, ...]
    padding: tuple[int, ...] | str
    output_padding: tuple[int, ...]
    transposed: bool
    _reversed_padding_repeated_twice: list[int]

    def __init__(self, layer: nn.Module, out_channels: int) -> None:
        super().__init__()
        for name in ATTRIBUTES:
            if hasattr(layer, name):
                setattr(self, name, getattr(layer, name))
        self._set_out_channels(out_channels)
        self.train(layer.training)

    @property
    def linear(self) -> bool:
        """Whether the channels are the last axis, as a linear layer has them."""
        return not hasattr(self, "kernel_size")

    def _set_out_channels(self, out_channels: int) -> None:
        self.out_channels = out_channels
        if self.linear:
            self.out_features = out_channels

    def _output_shape(self, x: Tensor, output_size: Sequence[int] | None) -> list[int]:
        """Return the shape of the layer's output, whatever number of channels it reads."""
        if self.linear:
            return [*x.shape[:-1], self.out_channels]
        axes = len(self.kernel_size)
        before = x.shape[-axes:] if output_size is None else output_size[-axes:]
        after = [
            size if output_size is not None else self._output_length(size, axis)
            for axis, size in enumerate(before)
        ]
        return [*x.shape[: -axes - 1], self.out_channels, *after]

    def _output_length(self, length: int, axis: int) -> int:
        """Return how long an axis is after the layer, by the formulas of torch's documentation."""
        reach, stride = self.dilation[axis] * (self.kernel_size[axis] - 1) + 1, self.stride[axis]
        if self.padding == "same":
            return -(-length // stride)
        place = 2 * (len(self.kernel_size) - 1 - axis)  # the last axis stands first
        padding = sum(self._reversed_padding_repeated_twice[place : place + 2])
        if self.transposed:
            return (length - 1) * stride - padding + reach + self.output_padding[axis]
        return (length + padding - reach) // stride + 1


class NoChannels(RemovedLayer):
    """In the place of a layer that has lost all outputs: it gives 0 channels."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__(layer, 0)

    def forward(self, x: Tensor, output_size: Sequence[int] | None = None) -> Tensor:
        """Return no channels: (images, 0, ...), or (..., 0) in the place of a linear layer."""
        return x.new_zeros(self._output_shape(x, output_size))


class ConstantOutput(RemovedLayer):
    """In the place of a layer that has lost all inputs: it gives its bias at every position.

    Without a bias it gives zeros.
    """

    bias: nn.Parameter | None

    def __init__(self, layer: nn.Module) -> None:
        channels = layer.out_features if isinstance(layer, nn.Linear) else layer.out_channels
        assert isinstance(channels, int)
        super().__init__(layer, channels)
        for name in ("in_channels", "in_features"):
            if hasattr(self, name):
                setattr(self, name, 0)
        bias = layer.bias
        assert bias is None or isinstance(bias, nn.Parameter)
        self.bias = bias

    def forward(self, x: Tensor, output_size: Sequence[int] | None = None) -> Tensor:
        """Return the constant in memory of its own, which later code may work in place on."""
        shape = self._output_shape(x, output_size)
        if self.bias is None:
            return x.new_zeros(shape)
        bias = self.bias if self.linear else self.bias.reshape(-1, *[1] * len(self.kernel_size))
        return bias.expand(shape).clone()

    def cut(self, indices: Sequence[int]) -> None:
        """Change the layer in place: these outputs go."""
        gone = set(indices)
        left = [channel for channel in range(self.out_channels) if channel not in gone]
        self._set_out_channels(len(left))
        if self.bias is not None:
            at = torch.tensor(left, device=self.bias.device)
            self.bias = nn.Parameter(self.bias.detach().index_select(0, at))


def replace_module(model: nn.Module, old: nn.Module, new: nn.Module) -> None:
    """Change the model in place: ``new`` stands wherever ``old`` stood, under any of its names."""
    for name, module in list(model.named_modules(remove_duplicate=False)):
        if module is old:
            model.set_submodule(name, new)


def removed_layers(model: nn.Module) -> dict[str, RemovedLayer]:
    """Return what stands in the places of layers that lost all outputs or inputs, by name."""
    modules = model.named_modules()
    return {name: module for name, module in modules if isinstance(module, RemovedLayer)}
