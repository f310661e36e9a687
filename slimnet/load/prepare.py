"""Bring a network into the one form that every later stage relies on."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from slimnet.errors import InputError
from slimnet.load.files import require_held

MAX_WRAPPERS = 8  # a guess; a wrapper that holds itself must end somewhere


def unwrapped(model: nn.Module) -> nn.Module:
    """Return the network inside torch.compile's and the data-parallel wrappers, unchanged."""
    for _ in range(MAX_WRAPPERS):
        if isinstance(model, (nn.DataParallel, nn.parallel.DistributedDataParallel)):
            model = model.module
        elif isinstance(getattr(model, "_orig_mod", None), nn.Module):
            model = model._orig_mod  # type: ignore[assignment]
        else:
            break
    return model


def prepare(model: nn.Module, source: str) -> nn.Module:
    """Change the model and return it: eval mode, CPU, float32, gradients on for every weight.

    Raises:
        InputError: a scripted network, no parameters, or a tensor without finite values.
    """
    require_unscripted(model, source)
    if not any(True for _ in model.parameters()):
        raise InputError(f"{source} has no parameters, so there is nothing to make smaller")
    for name, tensor in _tensors(model):
        if is_lazy(tensor) or tensor.is_meta:
            raise InputError(
                f"{source}: tensor {name} has no values yet (lazy or on the meta device); "
                "run the network once or load its weights, then save it"
            )
    require_held([tensor for _, tensor in _tensors(model)], source)
    model = model.cpu().float().eval()
    for name, tensor in _tensors(model):
        _require_finite(name, tensor, source)
    for parameter in model.parameters():
        parameter.data = parameter.data.contiguous()
        if parameter.is_floating_point():
            parameter.requires_grad_(True)
            parameter.grad = None
    return model


def precision_notes(weights: nn.Module | Mapping[str, Tensor]) -> tuple[str, ...]:
    """Return notes for the report on weights that will become float32."""
    given = weights.parameters() if isinstance(weights, nn.Module) else weights.values()
    tensors = [value for value in given if isinstance(value, Tensor)]
    kinds = {str(t.dtype) for t in tensors if t.is_floating_point()} - {"torch.float32"}
    return (
        (f"the weights came as {' and '.join(sorted(kinds))}; all results are of float32",)
        if kinds
        else ()
    )


def require_unscripted(model: object, source: str) -> None:
    """Refuse TorchScript: its layers cannot be replaced by smaller ones.

    Raises:
        InputError: the model is a TorchScript module.
    """
    if isinstance(model, torch.jit.ScriptModule):
        raise InputError(scripted_message(source))


def scripted_message(source: str) -> str:
    """Return why a TorchScript model cannot be slimmed."""
    return (
        f"{source} is TorchScript; scripted models cannot be pruned: give the original network, "
        "or its state dict with --arch"
    )


def _tensors(model: nn.Module) -> Iterator[tuple[str, Tensor]]:
    yield from model.named_parameters()
    yield from model.named_buffers()


def _require_finite(name: str, tensor: Tensor, source: str) -> None:
    if not (tensor.is_floating_point() or tensor.is_complex()):
        return
    # a buffer may be an attention mask, which holds -inf on purpose
    may_be_mask = not isinstance(tensor, nn.Parameter) and ".running_" not in f".{name}"
    bad = tensor.isnan() if may_be_mask else ~tensor.isfinite()
    if bool(bad.any()):
        raise InputError(
            f"{source}: tensor {name} holds NaN or infinite values ({int(bad.sum())} of "
            f"{tensor.numel()}); give a network that was trained to the end"
        )
