"""Networks that compute their weights or pad by themselves, as plain layers that do the same.

At inference a standardised, normalised, pruned or fake-quantised weight is a constant, padding of
the network's own is padding, and a frozen norm is a scale and a shift. Each such module is run on
made-up inputs, and what it passes to torch's convolution shows the plain layer. That stands in its
place if both give the same in float64. Whatever is no such module stays as it is.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from torch.ao.quantization import FakeQuantizeBase
from torch.nn.utils import parametrize, prune, remove_spectral_norm, remove_weight_norm
from torch.nn.utils.spectral_norm import SpectralNorm
from torch.nn.utils.weight_norm import WeightNorm

from slimnet.load.attributes import copied
from slimnet.load.layer_like import LAYERS, computes_by_hook, layer_like, tensors_of

SETTINGS = ("kernel_size", "stride", "padding", "dilation", "groups", "padding_mode",
            "output_padding")  # fmt: skip
HOOKS = ("_forward_hooks", "_forward_hooks_with_kwargs", "_forward_hooks_always_called",
         "_forward_pre_hooks", "_forward_pre_hooks_with_kwargs")  # fmt: skip
KNOWN = ("torch.nn.modules.", "slimnet.")  # where classes need no look
OBSERVER = "activation_post_process"  # torch's hook for fake-quantised outputs looks it up


@torch.no_grad()
def use_plain_layers(model: nn.Module) -> dict[str, str]:
    """Change the model: plain layers replace the modules inside it that do the same in eval mode.

    Modules of other code than a plain layer's stay, and so do all that are plain already. Keys of
    the state dict may change; the outputs do not.

    Returns:
        The former class of each replaced module, by the module's name.
    """
    changed = {
        name: type(module).__name__.removeprefix("Parametrized")
        for name, module in list(model.named_modules())
        if _has_computed_tensors(module)
    }
    for name in list(changed):
        if not _fix_tensors(model.get_submodule(name)):
            del changed[name]
    instead: dict[nn.Module, nn.Module] = {}
    inside: set[nn.Module] = {model}
    for name, module in model.named_modules():
        if module not in inside and (layer := _plain_form(module)) is not None:
            instead[module] = layer
            inside |= set(module.modules())
            changed.setdefault(name, type(module).__name__)
    for parent in list(model.modules()) if instead else ():
        for name, child in list(parent._modules.items()):  # a child may have several names
            if child in instead:
                setattr(parent, name, instead[child])
    return changed


def _has_computed_tensors(module: nn.Module) -> bool:
    """Tell whether torch computes some tensor of the module: parametrizations and old norms."""
    return parametrize.is_parametrized(module) or any(map(_remover, _pre_hooks(module)))


def _pre_hooks(module: nn.Module) -> list[Any]:
    return list(module._forward_pre_hooks.values())


def _remover(hook: Any) -> Callable[[nn.Module], object] | None:
    """Return what removes a hook of torch that computes a tensor, and leaves the value there."""
    if isinstance(hook, WeightNorm):
        return lambda module: remove_weight_norm(module, hook.name)
    if isinstance(hook, SpectralNorm):
        return lambda module: remove_spectral_norm(module, hook.name)
    if isinstance(hook, prune.BasePruningMethod):
        return lambda module: prune.remove(module, hook._tensor_name)  # type: ignore[no-untyped-call]
    return None


def _fix_tensors(module: nn.Module) -> bool:
    """Change the module: each tensor that torch computes becomes a parameter of that value.

    Returns whether that went well; a parametrization's own code may raise anything.
    """
    was_training = module.training
    try:
        module.eval()
        for remove in filter(None, map(_remover, _pre_hooks(module))):
            remove(module)
        if parametrize.is_parametrized(module):
            _fix_parametrizations(module)
    except Exception:
        return False
    finally:
        module.train(was_training)
    return True


def _fix_parametrizations(module: Any) -> None:
    """Change the module as ``remove_parametrizations`` would, but leave its class alone.

    That would also take the tensors out of the network that this one is a copy of: they share it.
    """
    values = {name: getattr(module, name).detach().clone() for name in module.parametrizations}
    module.__class__ = parametrize.type_before_parametrizations(module)
    del module.parametrizations
    for name, value in values.items():
        setattr(module, name, nn.Parameter(value))


def _plain_form(module: nn.Module) -> nn.Module | None:
    """Return the plain layer that does what the module does; None if there is none or it is one.

    Random weights decide: those of a fresh network, zeros and ones, could look like less than they
    are, and a fresh network must get the same layers as the trained one.
    """
    if _is_plain(module):
        return None
    try:
        probe = _double_copy(module)
        _randomize(probe)
        chosen = layer_like(probe)
        if chosen is None or _is_own(probe, chosen):
            return None
        layer = layer_like(_double_copy(module))
    except Exception:  # the module's own code may raise anything
        return None
    if type(layer) is not type(chosen):
        return None
    if layer.bias is None and isinstance(chosen.bias, nn.Parameter):  # a fresh bias may be 0
        layer.bias = nn.Parameter(torch.zeros_like(chosen.bias))
    like = next(tensor for tensor in tensors_of(module) if tensor.is_floating_point())
    layer = layer.to(like.device, like.dtype).train(module.training)
    if not computes_by_hook(module):
        for name in HOOKS:
            setattr(layer, name, getattr(module, name))
        if isinstance(observer := getattr(module, OBSERVER, None), nn.Module):
            layer.add_module(OBSERVER, observer)
    return layer


def may_change(model: nn.Module) -> bool:
    """Tell quickly whether the model holds modules that ``use_plain_layers`` would look at."""
    return any(
        _has_computed_tensors(module) or not (module is model or _is_plain(module))
        for module in model.modules()
    )


def _is_plain(module: nn.Module) -> bool:
    """Tell from the class alone whether there is nothing to replace; this costs no pass."""
    kind = type(module)
    if "forward" in vars(module) or (issubclass(kind, LAYERS) and computes_by_hook(module)):
        return False
    if kind.__module__.startswith(KNOWN):
        return True
    torchs = next(one for one in kind.__mro__ if one.__module__.startswith(KNOWN))
    inherited = all(
        getattr(kind, name, None) is getattr(torchs, name, None)
        for name in ("forward", "_conv_forward")
    )
    if inherited and torchs is not nn.Module:
        return True
    if issubclass(kind, LAYERS):
        return False
    if next(module.children(), None) is not None:
        # a module around one layer that scales what it reads or gives, with a tensor of its own
        return (
            next(tensors_of(module, recurse=False), None) is None
            or sum(isinstance(part, LAYERS) for part in module.modules()) != 1
        )
    return next(tensors_of(module), None) is None


def _double_copy(module: nn.Module) -> nn.Module:
    double = copied(module).double().eval().requires_grad_(False)
    for part in double.modules():
        if isinstance(part, FakeQuantizeBase):
            part.float()  # torch takes no other scale, whatever it scales
    return double


def _randomize(module: nn.Module) -> None:
    """Change the module: its floating-point tensors get random values around 1.

    They are positive: a variance must be.
    """
    generator = torch.Generator().manual_seed(0)
    for tensor in filter(torch.is_floating_point, tensors_of(module)):
        tensor.uniform_(0.5, 1.5, generator=generator)


def _is_own(module: nn.Module, layer: nn.Module) -> bool:
    """Tell whether the module has the very weights and settings of this layer."""
    return (
        isinstance(module, type(layer))
        and not computes_by_hook(module)
        and all(getattr(module, s, None) == getattr(layer, s, None) for s in SETTINGS)
        and all(
            (one is None) == (other is None) and (one is None or torch.equal(one, other))
            for one, other in ((getattr(m, t) for m in (module, layer)) for t in ("weight", "bias"))
        )
    )
