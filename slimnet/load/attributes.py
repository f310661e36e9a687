"""Attributes that a forward writes into modules, beside parameters: caches, and outputs kept.

A detector's head caches its grid, an attention block keeps its last map. What a run wrote may not
fit the next one, on another size, by a narrower copy, with gradients or in a tracer.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils import _pytree

OF_TORCH = frozenset(vars(nn.Module()))  # parameters, buffers, modules, hooks and train mode


@contextmanager
def inference(model: nn.Module) -> Iterator[None]:
    """Run the block in torch's inference mode; attributes that forwards write in it are undone.

    A tensor that is made in this mode may be in no graph, and so may not be found there later.
    """
    with torch.inference_mode(), attributes_kept(model):
        yield


@contextmanager
def attributes_kept(model: nn.Module) -> Iterator[None]:
    """Undo at the end what forwards in the block write into attributes of the model's modules.

    That is done for modules that hold a new tensor then: all of their attributes are the former
    ones again, with the former content of lists, dicts and sets. In eval mode their buffers are
    the former tensors, too. Values written into a tensor stay.
    """
    before = [(module, *_attributes(module)) for module in model.modules()]
    held = {id(tensor) for module, *_ in before for tensor in _tensors(module)}
    try:
        yield
    finally:
        for module, attributes, buffers in before:
            if any(id(tensor) not in held for tensor in _tensors(module)):
                _put_back(module, attributes)
                if not module.training:
                    module._buffers.update(buffers)


def _attributes(module: nn.Module) -> tuple[dict[str, tuple[Any, Any]], dict[str, Any]]:
    """Return each attribute, with a copy of its content if it may grow, and the buffers."""
    attributes = {
        name: (value, value.copy() if isinstance(value, (list, dict, set)) else None)
        for name, value in vars(module).items()
        if name not in OF_TORCH
    }
    return attributes, dict(module._buffers)


def _tensors(module: nn.Module) -> Iterator[Tensor]:
    """Give the tensors in the module's attributes, also in lists and the like, and its buffers."""
    for values in (vars(module), module._buffers):
        for name, value in values.items():
            if name not in OF_TORCH and isinstance(value, (Tensor, list, dict, tuple)):
                yield from (x for x in _pytree.tree_leaves(value) if isinstance(x, Tensor))


def _put_back(module: nn.Module, attributes: dict[str, tuple[Any, Any]]) -> None:
    """Change the module: it has exactly these attributes again."""
    own = vars(module)
    for name in [name for name in own if name not in OF_TORCH and name not in attributes]:
        del own[name]
    for name, (value, content) in attributes.items():
        own[name] = value
        if isinstance(value, list):
            value[:] = content
        elif isinstance(value, (dict, set)):
            value.clear()
            value.update(content)


def copied(model: nn.Module, shared: Mapping[int, Any] | None = None) -> nn.Module:
    """Return a copy of the model; tensors that its own code computed are copied without history.

    torch cannot copy these otherwise, such as the weight of the old ``weight_norm``
    (pytorch#28594), or an output that a module keeps.

    Args:
        model: the network.
        shared: what stands in the copy for an object of the model, by the object's id.
    """
    return copy.deepcopy(model, {**_computed_tensors(model), **(shared or {})})


def _computed_tensors(model: nn.Module) -> dict[int, Any]:
    """Return copies, by id, of the tensors that a module's code computed and left in it."""
    return {
        id(tensor): tensor.detach().clone()
        for module in model.modules()
        for tensor in _tensors(module)
        if tensor.is_inference() or not tensor.is_leaf
    }
