"""Hooks: see, or replace, what layers read and put out while the network runs."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any

from torch import Tensor, nn

from slimnet.execution.layers import first_argument

After = Callable[[str, nn.Module, Tensor, Tensor], Tensor | None]
"""Gets a layer's name, the layer, its input and its output; returns another output, or None."""

Before = Callable[[str, nn.Module, Tensor], Tensor | None]
"""Gets a layer's name, the layer and its input; returns another input, or None."""


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
    changed = before(name, layer, first_argument(args, kwargs))
    if changed is None:
        return None
    return ((changed, *args[1:]), kwargs) if args else (args, {**kwargs, "input": changed})


def _call_after(
    after: After, name: str, layer: nn.Module, args: Any, kwargs: Any, output: Tensor
) -> Tensor | None:
    return after(name, layer, first_argument(args, kwargs), output)
