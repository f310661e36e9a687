"""Watching layers: what each of them reads and puts out while the network runs."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any

from torch import Tensor, nn

from slimnet.groups import first_argument

Watch = Callable[[str, nn.Module, Tensor, Tensor], Tensor | None]
"""Given a layer's name, the layer, what it read and what it put out; may give other output."""


@contextmanager
def watching(model: nn.Module, names: Iterable[str], watch: Watch) -> Iterator[None]:
    """Call ``watch`` whenever one of these layers has run; the model is as before at the end."""

    def hook(name: str, layer: nn.Module, args: Any, kwargs: Any, written: Tensor) -> Tensor | None:
        return watch(name, layer, first_argument(args, kwargs), written)

    with ExitStack() as hooks:
        for name in names:
            module = model.get_submodule(name)
            handle = module.register_forward_hook(partial(hook, name), with_kwargs=True)
            hooks.callback(handle.remove)
        yield
