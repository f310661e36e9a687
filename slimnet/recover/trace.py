"""The calls of a network's modules, in order: what a replay of it numbers and leaves out."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn


@dataclass(frozen=True)
class Call:
    """One call of a module. Calls inside it have the numbers up to ``end``, not included.

    ``overwritten`` says that something later works in place on its output; ``replayable`` is False
    where it does more than to give one tensor: where it gives anything else, works in place on
    what it is given, which whoever else holds that would miss, or leaves something on a module.
    """

    module: str
    end: int
    replayable: bool
    overwritten: bool


@torch.no_grad()
def trace_calls(model: nn.Module, run: Callable[[], object]) -> tuple[Call, ...]:
    """Return the calls of the model's modules while ``run`` runs it; it is not changed.

    Empty where the modules cannot be wrapped (compiled or scripted ones).
    """
    names: list[str] = []
    ends: dict[int, int] = {}
    in_place: set[int] = set()
    leaving: set[int] = set()
    outputs: dict[int, tuple[Any, int]] = {}

    def watch(name: str, forward: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        number = len(names)
        names.append(name)
        given = [(t, t._version) for t in (*args, *kwargs.values()) if isinstance(t, Tensor)]
        before = _own_values(forward)
        output = forward(*args, **kwargs)
        if _own_values(forward) != before or any(n in leaving for n in range(number, len(names))):
            leaving.add(number)
        if any(tensor._version != version for tensor, version in given):
            in_place.add(number)
        ends[number] = len(names)
        outputs[number] = output, getattr(output, "_version", 0)
        return output

    below = {name for name, _ in model.named_modules() if name}
    try:
        with wrapped(model, below, watch):
            run()
    except (AttributeError, RuntimeError):
        return ()
    return tuple(
        Call(
            module=name,
            end=ends[number],
            replayable=isinstance(outputs[number][0], Tensor) and number not in in_place | leaving,
            overwritten=getattr(outputs[number][0], "_version", 0) != outputs[number][1],
        )
        for number, name in enumerate(names)
    )


def _own_values(forward: Callable[..., Any]) -> dict[str, int]:
    """Return which objects a module has as attributes of its own, by name."""
    values = vars(getattr(forward, "__self__", object))
    return {name: id(value) for name, value in values.items() if name != "forward"}


def first_call(calls: Sequence[Call], modules: Collection[str]) -> int:
    """Return the number of the first call of any of these modules.

    0 where one has no call, or where there are none.
    """
    numbers: dict[str, int] = {}
    for number, call in enumerate(calls):
        numbers.setdefault(call.module, number)
    return min((numbers.get(module, 0) for module in modules), default=0)


def calls_before(calls: Sequence[Call], start: int) -> list[int]:
    """Return the calls that give what was recorded in a replay from call ``start``."""
    needed, number = [], 0
    while number < start:
        call = calls[number]
        if call.end <= start and call.replayable:
            needed.append(number)
            number = call.end
        else:
            number += 1
    return needed


@contextmanager
def wrapped(model: nn.Module, names: Collection[str], call: Callable[..., Any]) -> Iterator[None]:
    """Change the model for the time of the block: these modules' calls go through ``call``.

    It is given the module's name, its own forward, and the arguments.

    Raises:
        AttributeError: a module cannot be wrapped, or is already; none is then.
    """
    wrapped = []
    try:
        for name, module in model.named_modules():
            if name in names:
                if "forward" in vars(module):
                    raise AttributeError("this module's forward is wrapped already")
                module.forward = partial(call, name, module.forward)
                wrapped.append(module)
        yield
    finally:
        for module in wrapped:
            del module.forward
