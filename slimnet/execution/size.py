"""How big a network is and how much it computes: parameters, convolution weights, MACs."""

from collections.abc import Callable, Mapping, Sequence
from math import prod
from typing import Any

import torch
from torch import nn
from torch.nn.modules.conv import _ConvNd
from torch.utils.flop_counter import FlopCounterMode

from slimnet.load import on_shapes
from slimnet.records import Inputs, Size
from slimnet.tasks import fill_batch, forward

Shape = Sequence[int]
aten = torch.ops.aten


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


def linear_share(model: nn.Module, example: Inputs) -> float:
    """Return the share of the linear layers in what they and convolutions compute, 0 to 1.

    It is a share of multiply-accumulates for one of the inputs (images, ...). The model, in eval
    mode, is not changed.
    """
    return on_shapes(_linear_share, model, fill_batch(example, 1))


def _linear_share(model: nn.Module, image: Inputs) -> float:
    linear = all_layers = 0
    for name, operations in _counted(model, image).get_flop_counts().items():
        inside = name.partition(".")[2]  # each name begins with the class of the network
        module = None if name == "Global" else model.get_submodule(inside)
        if isinstance(module, (nn.Linear, _ConvNd)):
            flops = sum(operations.values())
            linear += flops * isinstance(module, nn.Linear)
            all_layers += flops
    return linear / all_layers if all_layers else 0.0


def _count_macs(model: nn.Module, image: Inputs) -> int:
    return int(_counted(model, image).get_total_flops()) // 2


def _counted(model: nn.Module, image: Inputs) -> FlopCounterMode:
    """Return the counts of one pass, two FLOPs for each MAC."""
    # The fused attention path is one opaque operation that the counter takes for free.
    was_enabled = torch.backends.mha.get_fastpath_enabled()
    counter = FlopCounterMode(display=False, custom_mapping=dict(MISSING_FLOPS))
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        with torch.no_grad(), counter:
            forward(model, image)
    finally:
        torch.backends.mha.set_fastpath_enabled(was_enabled)
    return counter


# Operations have their tensors' shapes as arguments here, and return two FLOPs for each MAC.


def _lstm_layer(reads: Shape, of_inputs: Shape, of_states: Shape, *_: Any, **__: Any) -> int:
    """Count one direction of one layer, with its weights (4 · units, features)."""
    return 2 * prod(reads[:-1]) * (prod(of_inputs) + prod(of_states))


def _attention(queries: Shape, keys: Shape, values: Shape, *_: Any, **__: Any) -> int:
    return 2 * prod(queries[:-1]) * keys[-2] * (queries[-1] + values[-1])


def _vector_product(matrix: Shape, _: Shape, **__: Any) -> int:
    return 2 * prod(matrix)


def _added_vector_product(_: Shape, matrix: Shape, __: Shape, **___: Any) -> int:
    return 2 * prod(matrix)


def _added_batch_product(_: Shape, one: Shape, other: Shape, **__: Any) -> int:
    return 2 * prod(one) * other[-1]


def _bilinear(reads: Shape, weights: Shape, *_: Any, **__: Any) -> int:
    return 2 * prod(reads[:-1]) * prod(weights)


# PyTorch's counter takes these for free. Which of them run depends on the processor, and on
# whether the tensors hold data.
MISSING_FLOPS: Mapping[Any, Callable[..., int]] = {
    aten.mkldnn_rnn_layer: _lstm_layer,
    aten._scaled_dot_product_flash_attention_for_cpu: _attention,
    aten.mv: _vector_product,
    aten.dot: _vector_product,
    aten.addmv: _added_vector_product,
    aten.addbmm: _added_batch_product,
    aten._trilinear: _bilinear,
}
