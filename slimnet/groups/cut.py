"""Mask a plan's channels (weights at 0, shapes unchanged), or cut them out of the network."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import cast

import torch
import torch_pruning
from torch import Tensor, nn

from slimnet.errors import InputError
from slimnet.execution import (
    PRODUCERS,
    ConstantOutput,
    Direction,
    NoChannels,
    RemovedLayer,
    channel_count,
    has_one_axis,
    is_depthwise,
    replace_module,
    weight_slices,
)
from slimnet.load import copied, use_plain_layers
from slimnet.records import Plan

OTHER_NETWORK = (
    "it was made for another network, or was applied before: give the architecture that it was "
    "made for, before slimming; its weights may differ"
)


@torch.no_grad()
def mask(model: nn.Module, plan: Plan) -> None:
    """Change the model in place: set every weight that the plan removes to 0."""
    for parameter, dimension, positions in _slices(model, plan):
        parameter.index_fill_(dimension, positions, 0.0)


@contextmanager
def masked(model: nn.Module, plan: Plan) -> Iterator[None]:
    """Mask the model inside the block; afterwards every weight is restored bit for bit."""
    saved = [(p, d, at, p.detach().index_select(d, at)) for p, d, at in _slices(model, plan)]
    mask(model, plan)
    try:
        yield
    finally:
        with torch.no_grad():
            for parameter, dimension, positions, values in saved:
                parameter.index_copy_(dimension, positions, values)


def _slices(model: nn.Module, plan: Plan) -> Iterator[tuple[Tensor, int, Tensor]]:
    """Yield (parameter, dimension, positions) of every weight that the plan removes."""
    for name, axes in plan.items():
        for direction, indices in axes.items():
            module, index = model.get_submodule(name), torch.tensor(indices)
            yield from weight_slices(module, cast(Direction, direction), index)


def slim_copy(model: nn.Module, plan: Plan) -> nn.Module:
    """Return a slim copy of the model; the model itself is not changed."""
    return cut_out(copied(model), plan)


def apply_plan(model: nn.Module, plan: Plan) -> nn.Module:
    """Change the model in place: remove the plan's channels and their coupled weights.

    Layers that compute their weights, or pad or scale by themselves, become plain layers first, as
    in the network that the plan was made for.

    A layer that loses all outputs is gone: ``NoChannels`` stands in its place, or an identity in
    that of a norm. A layer that loses all inputs, but not all outputs, is a ``ConstantOutput``.

    Args:
        model: the network that the plan was made for, with its original shapes.
        plan: indices to remove, by module name and direction, in the original numbering.

    Returns:
        The same model, now slim: ready for a strict ``load_state_dict`` of the slim weights.

    Raises:
        InputError: the plan names a module or an index that the model does not have; no channel
            is removed then.
    """
    use_plain_layers(model)
    return cut_out(model, plan)


def cut_out(model: nn.Module, plan: Plan) -> nn.Module:
    """Change the model in place and return it: ``apply_plan`` for a network as it was loaded."""
    _check_fit(model, plan)
    learning = {name: parameter.requires_grad for name, parameter in model.named_parameters()}
    for name, axes in plan.items():
        module = model.get_submodule(name)
        whole = {d for d, indices in axes.items() if len(indices) == _count(module, d)}
        if "out" in whole or (whole and has_one_axis(module)):
            channels = isinstance(module, (*PRODUCERS, RemovedLayer))
            replace_module(model, module, NoChannels(module) if channels else nn.Identity())
            continue
        if "in" in whole:
            constant = ConstantOutput(module)
            replace_module(model, module, constant)
            constant.cut(axes.get("out", ()))
            continue
        for direction, indices in axes.items():
            _cut(name, module, direction, indices)
    for name, parameter in model.named_parameters():
        # cutting makes new parameters, which would learn even where the old ones were frozen
        parameter.requires_grad_(learning[name])
    return model


def _count(module: nn.Module, direction: str) -> int | None:
    """Return how many channels the module has on one side, None if there are none to remove."""
    return channel_count(module, cast(Direction, direction)) or None


def _cut(name: str, module: nn.Module, direction: str, indices: Sequence[int]) -> None:
    """Change the module in place: some of its channels on one side go, not all."""
    if isinstance(module, ConstantOutput):
        module.cut(indices)
        return
    if isinstance(module, nn.GroupNorm):
        _remove_norm_groups(name, module, indices)
    pruner = _pruner(name, module)
    cut = pruner.prune_out_channels if direction == "out" else pruner.prune_in_channels
    cut(module, list(indices))


def _remove_norm_groups(name: str, norm: nn.GroupNorm, indices: Sequence[int]) -> None:
    """Change the norm in place: it has fewer groups, each of as many channels as before.

    Raises:
        InputError: the channels of some group do not go all together.
    """
    size = norm.num_channels // norm.num_groups
    lost = Counter(index // size for index in indices)
    if set(lost.values()) != {size}:
        raise InputError(
            f"the plan removes some channels of {name!r}, a GroupNorm, that are normalised with "
            f"others which stay; {OTHER_NETWORK}"
        )
    norm.num_groups -= len(lost)


def _pruner(name: str, module: nn.Module) -> torch_pruning.pruner.function.BasePruningFunc:
    kind = torch_pruning.ops.module2type(module)
    if kind == torch_pruning.ops.OPTYPE.DEPTHWISE_CONV and not is_depthwise(module):
        # grouped with one output a group: torch-pruning takes it for depthwise
        kind = torch_pruning.ops.OPTYPE.CONV
    if kind not in torch_pruning.pruner.function.PrunerBox:
        raise InputError(
            f"the plan removes channels of {name!r}, which in this network is a "
            f"{type(module).__name__} and has none; {OTHER_NETWORK}"
        )
    return torch_pruning.pruner.function.PrunerBox[kind]


def channels_of(model: nn.Module, plan: Plan) -> dict[str, dict[str, int]]:
    """Return the model's number of channels, by name and direction, wherever the plan removes some.

    The model is not changed.

    Raises:
        InputError: the plan names a module that the model does not have, or one without channels.
    """
    modules = dict(model.named_modules())
    found: dict[str, dict[str, int]] = {}
    for name, axes in plan.items():
        if name not in modules:
            raise InputError(
                f"the plan names the layer {name!r}, which this network does not have; "
                f"{OTHER_NETWORK}"
            )
        module = modules[name]
        if not isinstance(module, RemovedLayer):
            _pruner(name, module)
        counts = {d: channel_count(module, cast(Direction, d)) for d in axes}
        found[name] = {d: size for d, size in counts.items() if size is not None}
    return found


def _check_fit(model: nn.Module, plan: Plan) -> None:
    if not isinstance(plan, Mapping):
        raise InputError(
            f"a plan is a mapping, as slimnet.load_plan returns it; got a {type(plan).__name__}"
        )
    for name, counts in channels_of(model, plan).items():
        for direction, size in counts.items():
            indices = plan[name][direction]
            if indices and not (indices[0] >= 0 and indices[-1] < size):
                raise InputError(
                    f"the plan removes index {indices[-1]} of {name!r} ({direction}), which has "
                    f"{size}; {OTHER_NETWORK}"
                )
