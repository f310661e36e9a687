"""Folding: batch norms that only scale and shift a layer's output become part of its weights.

That saves a pass over every feature map. The folded copy runs; repair and removal work on the
network as it is, and new values of its parameters are folded before they run.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from slimnet.execution.layers import (
    BATCH_NORMS,
    CONVOLUTIONS,
    PRODUCERS,
    TRANSPOSED,
    watching,
)
from slimnet.execution.states import get_state, replaced
from slimnet.load import SamePaddedConv2d, copied

SAME = 1e-4
"""Share of the largest output that rounding may change. A guess: float32 rounds to 1e-7, which
grows from layer to layer; a norm that is folded wrongly changes much more."""


@torch.no_grad()
def normed_layers(model: nn.Module, run: Callable[[], object]) -> list[tuple[str, str]]:
    """Return each layer whose own output a batch norm reads, with that norm.

    ``run`` runs the model, which is not changed.
    """
    outputs: dict[str, Tensor] = {}
    pairs: list[tuple[str, str]] = []

    def after(name: str, module: nn.Module, read: Tensor, output: Tensor) -> None:
        if isinstance(module, PRODUCERS):
            outputs[name] = output
        else:
            pairs.extend((layer, name) for layer, seen in outputs.items() if read is seen)

    kinds = (*PRODUCERS, *BATCH_NORMS)
    names = [name for name, module in model.named_modules() if isinstance(module, kinds)]
    with watching(model, names, after):
        run()
    return pairs


@torch.no_grad()
def norms_to_fold(
    model: nn.Module, norms: Mapping[str, str], run: Callable[[nn.Module], Sequence[Tensor]]
) -> Mapping[str, str]:
    """Return which of these batch norms, by layer, can be folded; the model is not changed.

    Args:
        model: the network.
        norms: the batch norm that alone reads a layer's output, by layer.
        run: runs a network and returns its outputs. Where folding changes them, there are none.
    """
    norms = {
        layer: norm
        for layer, norm in norms.items()
        if can_fold(model.get_submodule(layer), model.get_submodule(norm))
    }
    if not norms:
        return {}
    expected = run(model)
    try:
        got = run(folded(model, norms))
    except Exception:
        # the network's own code reads a norm: none is folded
        return {}
    return norms if alike(got, expected) else {}


def folded(model: nn.Module, norms: Mapping[str, str]) -> nn.Module:
    """Return a copy with these norms, by layer, folded into their layers; norms are in eval mode.

    It shares all other parameters and buffers with the model, which is not changed.
    """
    shared: dict[int, Any] = {id(value): value for value in (*model.parameters(), *model.buffers())}
    gone = {id(model.get_submodule(norm)): nn.Identity() for norm in norms.values()}
    fast = copied(model, shared | gone)
    for layer, norm in norms.items():
        module = fast.get_submodule(layer)
        weight, bias = _folded_pair(model, layer, norm)
        module.weight, module.bias = (nn.Parameter(x, requires_grad=False) for x in (weight, bias))
    return fast


def folded_values(
    model: nn.Module, values: Mapping[str, Tensor], norms: Mapping[str, str]
) -> dict[str, Tensor]:
    """Return new values of parameters and buffers of ``model`` as those of its folded copy.

    The model is as before on return.
    """
    pairs = [(layer, norm) for layer, norm in norms.items() if _touched(values, layer, norm)]
    inside = {module for pair in pairs for module in pair}
    found = {k: value for k, value in values.items() if k.rpartition(".")[0] not in inside}
    with replaced(model, values):
        for layer, norm in pairs:
            found[f"{layer}.weight"], found[f"{layer}.bias"] = _folded_pair(model, layer, norm)
    return found


def _touched(values: Mapping[str, Tensor], *modules: str) -> bool:
    return any(key.rpartition(".")[0] in modules for key in values)


def _folded_pair(model: nn.Module, layer: str, norm: str) -> tuple[Tensor, Tensor]:
    """Return the weight and bias of a layer with the norm after it.

    One formula for all kinds of layers; torch has one for convolutions and one for linear layers.
    """
    module, epsilon = model.get_submodule(layer), model.get_submodule(norm).eps
    assert isinstance(epsilon, float)
    mean, variance = (get_state(model, f"{norm}.running_{moment}") for moment in ("mean", "var"))
    scale = get_state(model, f"{norm}.weight") / (variance + epsilon).sqrt()
    weight, shift = get_state(model, f"{layer}.weight"), get_state(model, f"{norm}.bias")
    biased = module.bias is not None
    bias = get_state(model, f"{layer}.bias") - mean if biased else -mean
    transposed = isinstance(module, TRANSPOSED)
    shape = (1, -1) if transposed else (-1, 1)
    factors = scale.reshape(*shape, *[1] * (weight.ndim - 2))
    return (weight * factors).detach(), (shift + bias * scale).detach()


def can_fold(layer: nn.Module, norm: nn.Module) -> bool:
    """Tell whether a norm has all that is needed to fold it into such a layer."""
    # the weights of a grouped transposed convolution have no axis of output channels
    plain = type(layer) in (*CONVOLUTIONS, SamePaddedConv2d, nn.Linear) or (
        type(layer) in TRANSPOSED and getattr(layer, "groups", 1) == 1
    )
    affine = getattr(norm, "weight", None) is not None
    return plain and affine and getattr(norm, "running_mean", None) is not None


def alike(got: Sequence[Tensor], expected: Sequence[Tensor]) -> bool:
    """Tell whether a network's outputs are equal but for rounding."""
    return len(got) == len(expected) and all(
        torch.allclose(one, other, rtol=SAME, atol=SAME * float(other.abs().max()))
        for one, other in zip(got, expected, strict=True)
    )
