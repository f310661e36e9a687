"""Slimming: the channels of a plan are cut out, leaving dense smaller layers."""

from __future__ import annotations

import copy
from collections.abc import Mapping

import torch_pruning
from torch import nn

from slimnet.errors import InputError
from slimnet.groups.sides import is_depthwise
from slimnet.records import Plan

OTHER_NETWORK = (
    "it was made for another network, or was applied already: give the architecture that it was "
    "made for, before slimming; its weights may be others"
)


def slim_copy(model: nn.Module, plan: Plan) -> nn.Module:
    """Return a slim copy of the model; the model itself is not changed."""
    return apply_plan(copy.deepcopy(model), plan)


def apply_plan(model: nn.Module, plan: Plan) -> nn.Module:
    """Change the model in place: remove the plan's channels and their coupled weights.

    Args:
        model: the network that the plan was made for, with its original shapes.
        plan: indices to remove, by module name and side, in the original numbering.

    Returns:
        The same model, now slim: ready for a strict ``load_state_dict`` of the slim weights.

    Raises:
        InputError: the plan names a module or an index that the model does not have; the model
            is not changed then.
    """
    _check_fit(model, plan)
    learning = {name: parameter.requires_grad for name, parameter in model.named_parameters()}
    for name, sides in plan.items():
        module = model.get_submodule(name)
        for side, indices in sides.items():
            pruner = _pruner(name, module)
            cut = pruner.prune_out_channels if side == "out" else pruner.prune_in_channels
            cut(module, list(indices))
    for name, parameter in model.named_parameters():
        # what is cut is made anew, and would learn even where it was frozen
        parameter.requires_grad_(learning[name])
    return model


def _pruner(name: str, module: nn.Module) -> torch_pruning.pruner.function.BasePruningFunc:
    kind = torch_pruning.ops.module2type(module)
    if kind == torch_pruning.ops.OPTYPE.DEPTHWISE_CONV and not is_depthwise(module):
        # grouped, with one output a group left: torch-pruning looks at the outputs alone
        kind = torch_pruning.ops.OPTYPE.CONV
    if kind not in torch_pruning.pruner.function.PrunerBox:
        raise InputError(
            f"the plan removes channels of {name!r}, which in this network is a "
            f"{type(module).__name__} and has none; {OTHER_NETWORK}"
        )
    return torch_pruning.pruner.function.PrunerBox[kind]


def channels_of(model: nn.Module, plan: Plan) -> dict[str, dict[str, int]]:
    """Return how many channels the model has wherever the plan removes some, by name and side.

    The model is not changed.

    Raises:
        InputError: the plan names a module that the model does not have, or one without channels.
    """
    modules = dict(model.named_modules())
    found: dict[str, dict[str, int]] = {}
    for name, sides in plan.items():
        if name not in modules:
            raise InputError(
                f"the plan names the layer {name!r}, which this network does not have; "
                f"{OTHER_NETWORK}"
            )
        module = modules[name]
        pruner = _pruner(name, module)
        counts = {
            side: pruner.get_out_channels(module)
            if side == "out" or is_depthwise(module)
            else pruner.get_in_channels(module)
            for side in sides
        }
        found[name] = {side: int(size) for side, size in counts.items() if size is not None}
    return found


def _check_fit(model: nn.Module, plan: Plan) -> None:
    if not isinstance(plan, Mapping):
        raise InputError(
            f"a plan is what slimnet.load_plan reads from plan.json; got a {type(plan).__name__}"
        )
    for name, counts in channels_of(model, plan).items():
        for side, size in counts.items():
            indices = plan[name][side]
            if indices and not (indices[0] >= 0 and indices[-1] < size):
                raise InputError(
                    f"the plan removes index {indices[-1]} of {name!r} ({side}), which has {size}; "
                    f"{OTHER_NETWORK}"
                )
