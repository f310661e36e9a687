"""How big a network is and how much it computes: parameters, convolution weights, MACs."""

from collections.abc import Callable

import torch
from torch import nn
from torch.nn.modules.conv import _ConvNd
from torch.utils.flop_counter import FlopCounterMode

from slimnet.load import on_shapes
from slimnet.records import Inputs, Size
from slimnet.tasks import fill_batch, forward


def measure_size(
    model: nn.Module,
    example: Inputs,
    change: Callable[[nn.Module], nn.Module] = lambda model: model,
) -> Size:
    """Measure a copy of the model, after ``change``; does not change the model.

    Args:
        model: the network; a parameter that several layers share counts once.
        example: preprocessed inputs (images, ...); only the first image is used.
        change: what is done to the copy first.

    Returns:
        Parameters and convolution weights (transposed included, biases not) as counts, and the
        multiply-accumulates of one image in eval mode.
    """
    return on_shapes(_size, model, fill_batch(example, 1), change)


def _size(model: nn.Module, image: Inputs) -> Size:
    return Size(
        parameters=count_parameters(model),
        conv_weights=count_conv_weights(model),
        macs=_count_macs(model.eval(), image),
    )


def count_parameters(model: nn.Module) -> int:
    """Return how many parameters the model has; one that several layers share counts once."""
    return sum(parameter.numel() for parameter in model.parameters())


def count_conv_weights(model: nn.Module) -> int:
    """Return how many weights its convolutions have, transposed included, biases not."""
    # held while they are counted: a weight that code computes is a new tensor each time
    weights = {id(w): w for w in (m.weight for m in model.modules() if isinstance(m, _ConvNd))}
    return sum(weight.numel() for weight in weights.values())


def _count_macs(model: nn.Module, image: Inputs) -> int:
    # The fused attention path is one opaque operation that the counter takes for free.
    was_enabled = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        with torch.no_grad(), FlopCounterMode(display=False) as counter:
            forward(model, image)
    finally:
        torch.backends.mha.set_fastpath_enabled(was_enabled)
    return int(counter.get_total_flops()) // 2
