"""Layers: their kinds, which weights belong to a channel, and hooks on what they read and give."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any, Literal

import torch
from torch import Tensor, nn

from slimnet.execution.removed import RemovedLayer

Direction = Literal["out", "in"]
CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
TRANSPOSED = (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)
BATCH_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.SyncBatchNorm)
INSTANCE_NORMS = (nn.InstanceNorm1d, nn.InstanceNorm2d, nn.InstanceNorm3d)
GROUP_NORMS = (nn.GroupNorm,)
PRODUCERS = (*CONVOLUTIONS, *TRANSPOSED, nn.Linear)
TWO_SIDES_IN_ONE = (*BATCH_NORMS, *INSTANCE_NORMS, *GROUP_NORMS, nn.PReLU)
SUPPORTED = (*PRODUCERS, *TWO_SIDES_IN_ONE)
After = Callable[[str, nn.Module, Tensor, Tensor], Tensor | None]
"""Gets a layer's name, the layer, its input and its output; returns another output, or None."""

Before = Callable[[str, nn.Module, Tensor], Tensor | None]
"""Gets a layer's name, the layer and its input; returns another input, or None."""


def channel_axis(module: nn.Module, values: Tensor) -> int:
    """Return the axis of the channels in what such a module reads or gives."""
    return values.ndim - 1 if isinstance(module, nn.Linear) else 1


def is_depthwise(module: nn.Module) -> bool:
    """Tell whether the module is a convolution with one filter for each channel."""
    return (
        isinstance(module, (*CONVOLUTIONS, *TRANSPOSED))
        and module.groups == module.in_channels == module.out_channels
        and module.groups > 1
    )


def has_one_axis(module: nn.Module) -> bool:
    """Tell whether the module's inputs and outputs are the same channels, as those of a norm."""
    return isinstance(module, TWO_SIDES_IN_ONE) or is_depthwise(module)


def channel_count(module: nn.Module, direction: Direction) -> int | None:
    """Return how many channels a module has on one side, None if it has none of its own.

    A norm has the same channels on both sides, and so has a depthwise convolution.
    """
    if isinstance(module, RemovedLayer):
        return module.out_channels if direction == "out" else 0
    if isinstance(module, nn.PReLU):
        return module.num_parameters if module.num_parameters > 1 else None
    names = ("out_channels", "out_features", "num_features", "num_channels")
    if direction == "in" and not has_one_axis(module):
        names = ("in_channels", "in_features", "num_features", "num_channels")
    return next((getattr(module, name) for name in names if hasattr(module, name)), None)


def output_channels(model: nn.Module, *, removed: bool = False) -> dict[str, int]:
    """Return how many output channels each convolution and linear layer has, by module name.

    With ``removed``, also those of layers that lost all outputs or all inputs.
    """
    kinds = (*PRODUCERS, RemovedLayer) if removed else PRODUCERS
    return {
        name: module.out_features if isinstance(module, nn.Linear) else module.out_channels
        for name, module in model.named_modules()
        if isinstance(module, kinds)
    }


def weight_slices(
    module: nn.Module, direction: Direction, index: Tensor
) -> Iterator[tuple[Tensor, int, Tensor]]:
    """Yield (parameter, dimension, positions) for the weights that go with ``index``.

    ``index`` is int64 of shape (entries,) in the module's own channel numbering; the positions
    are along ``dimension`` of the parameter.
    """
    if isinstance(module, (*CONVOLUTIONS, *TRANSPOSED)) and not is_depthwise(module):
        transposed = isinstance(module, TRANSPOSED)
        dimension = int((direction == "out") == transposed)
        # the second dimension of a grouped convolution counts within one group
        positions = torch.unique(index % module.weight.shape[1]) if dimension == 1 else index
        yield module.weight, dimension, positions
    elif isinstance(module, nn.Linear):
        yield module.weight, int(direction == "in"), index
    elif isinstance(weight := getattr(module, "weight", None), Tensor) and len(weight) > 1:
        yield weight, 0, index
    if direction == "out" and isinstance(bias := getattr(module, "bias", None), Tensor):
        yield bias, 0, index


def channel_weights(module: nn.Module) -> Tensor:
    """Return the weights of each output channel as a view or copy of shape (channels, weights)."""
    weight = module.weight
    assert isinstance(weight, Tensor)
    if isinstance(module, TRANSPOSED) and not is_depthwise(module):
        groups = module.groups
        split = weight.reshape(groups, weight.shape[0] // groups, *weight.shape[1:])
        weight = torch.flatten(split.transpose(1, 2), 0, 1)
    return weight.flatten(1)


@contextmanager
def watching(
    model: nn.Module,
    names: Iterable[str],
    after: After | None = None,
    before: Before | None = None,
) -> Iterator[None]:
    """Call ``before`` and ``after`` whenever one of these modules runs within the block.

    The model has no hooks of this block any more when it ends.
    """
    with ExitStack() as hooks:
        for name in names:
            module = model.get_submodule(name)
            if before is not None:
                handle = module.register_forward_pre_hook(
                    partial(_call_before, before, name), with_kwargs=True
                )
                hooks.callback(handle.remove)
            if after is not None:
                handle = module.register_forward_hook(
                    partial(_call_after, after, name), with_kwargs=True
                )
                hooks.callback(handle.remove)
        yield


def _call_before(before: Before, name: str, layer: nn.Module, args: Any, kwargs: Any) -> Any:
    changed = before(name, layer, _first_argument(args, kwargs))
    if changed is None:
        return None
    return ((changed, *args[1:]), kwargs) if args else (args, {**kwargs, "input": changed})


def _call_after(
    after: After, name: str, layer: nn.Module, args: Any, kwargs: Any, output: Tensor
) -> Tensor | None:
    return after(name, layer, _first_argument(args, kwargs), output)


def _first_argument(args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Tensor:
    """Return what a layer was called with, as ``layer(x)`` or ``layer(input=x)``."""
    found = args[0] if args else kwargs["input"]
    assert isinstance(found, Tensor)
    return found
