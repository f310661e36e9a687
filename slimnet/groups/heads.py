"""Whole attention heads: blocks of channels that a layer reads together, and no two of them mixed.

Within a head an attention mixes its channels, so that none can go alone. Which channels of queries,
keys and values belong to the block that a layer reads is seen in the derivative of that block by
what the layers before it gave. Heads can go where the network's code infers their number from the
width, as in ``view(batch, tokens, -1, head_size)``; a proof has to show it.
"""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from slimnet.groups.sides import (
    PRODUCERS,
    TWO_SIDES_IN_ONE,
    channel_axis,
    first_argument,
    is_depthwise,
)
from slimnet.groups.trace import Entry
from slimnet.measure import fill_batch, forward

Calls = dict[str, list[Tensor]]


def head_entries(model: nn.Module, example: Any, layers: Sequence[str]) -> list[list[Entry]]:
    """Return, for each layer that reads whole heads of these layers, all that goes with a head.

    The model, in eval mode, is not changed. Where derivatives cannot be taken there are none.
    """
    if not layers:
        return []
    try:
        reads, gives, between = _recorded(model, fill_batch(example, 1))
        found = [
            _Reader(model, name, calls[0], gives, between).entries()
            for name, calls in reads.items()
            if len(calls) == 1 and _reads_only(calls[0], layers, gives)
        ]
    except Exception:  # whatever the network's own code raises where gradients are asked for
        return []
    readers = [{entry.module for entry in entries} for entries in found]
    return [
        entries
        for entries, own in zip(found, readers, strict=True)
        # a layer of two readers would stand in two groups
        if entries and sum(bool(own & others) for others in readers) == 1
    ]


class _Reader:
    """A layer, and what it reads of what the layers just before it gave."""

    def __init__(
        self, model: nn.Module, name: str, reads: Tensor, gives: Calls, between: Calls
    ) -> None:
        self._model, self._name = model, name
        axis = channel_axis(model.get_submodule(name), reads)
        self._channels = reads.movedim(axis, 0).flatten(1)
        self._sources = {**gives, **between}

    def entries(self) -> list[Entry]:
        """Return what goes with each head; empty where there are none."""
        last = len(self._channels) - 1
        first = self._dependence(slice(0, 1))
        if last < 1 or _overlap(first, self._dependence(slice(last, None))):
            return []
        within, beyond = 0, last  # the first head ends in between
        while beyond - within > 1:
            middle = (within + beyond) // 2
            if _overlap(first, self._dependence(slice(middle, middle + 1))):
                within = middle
            else:
                beyond = middle
        size, rest = beyond, (last + 1) % beyond
        if size == 1 or rest:
            return []
        return list(self._goes_with(size))

    def _goes_with(self, size: int) -> Iterator[Entry]:
        blocks = [
            self._dependence(slice(start, start + size))
            for start in range(0, len(self._channels), size)
        ]
        if any(set(block) != set(blocks[0]) for block in blocks):
            return
        sides = {name: torch.stack([block[name] for block in blocks]) for name in blocks[0]}
        unit_of = _connected(torch.cat(list(sides.values()), 1))
        units = int(unit_of.max()) + 1
        owners = {
            name: torch.stack([read[unit_of == unit].any(0) for unit in range(units)])
            for name, read in sides.items()
        }
        if units < 2 or any(bool((owner.sum(0) != 1).any()) for owner in owners.values()):
            return
        for name, owner in owners.items():
            unit = owner.int().argmax(0)
            yield Entry(name, self._kind(name), False, torch.arange(len(unit)), unit, False)
        unit = unit_of.repeat_interleave(size)
        yield Entry(self._name, self._kind(self._name), True, torch.arange(len(unit)), unit, False)

    def _kind(self, name: str) -> type[nn.Module]:
        return type(self._model.get_submodule(name))

    def _dependence(self, block: slice) -> dict[str, Tensor]:
        """Return on which channels of each layer before these channels depend, (channels,) bool."""
        part = self._channels[block]
        weights = torch.randn(part.shape, generator=torch.Generator().manual_seed(0))
        outputs = [output for calls in self._sources.values() for output in calls]
        names = [name for name, calls in self._sources.items() for _ in calls]
        gradients = torch.autograd.grad(
            (part * weights).sum(), outputs, retain_graph=True, allow_unused=True
        )
        found: dict[str, Tensor] = {}
        for name, gradient in zip(names, gradients, strict=True):
            if gradient is not None:
                axis = channel_axis(self._model.get_submodule(name), gradient)
                reached = gradient.movedim(axis, 0).flatten(1).ne(0).any(1)
                found[name] = found[name] | reached if name in found else reached
        return {name: reached for name, reached in found.items() if bool(reached.any())}


def _reads_only(reads: Tensor, layers: Sequence[str], gives: Calls) -> bool:
    """Tell whether what is read was made of what these layers gave, and of no other layer."""
    layer_of = {id(output): name for name, calls in gives.items() for output in calls}
    found = False
    seen = set()
    nodes = deque([reads.grad_fn])
    while nodes:
        node = nodes.popleft()
        if node is None or node in seen:
            continue
        seen.add(node)
        layer = layer_of.get(id(getattr(node, "variable", None)))
        if layer is not None and layer not in layers:
            return False
        found |= layer is not None
        nodes += [before for before, _ in node.next_functions]
    return found


def _recorded(model: nn.Module, image: Any) -> tuple[Calls, Calls, Calls]:
    """Return what every layer reads, what it gives, and what norms in between give.

    Derivatives of what is read end at what is given.
    """
    reads: Calls = defaultdict(list)
    gives: Calls = defaultdict(list)
    between: Calls = defaultdict(list)

    def read(name: str, _: nn.Module, args: Any, kwargs: Any) -> None:
        reads[name].append(first_argument(args, kwargs))

    def give(name: str, _module: nn.Module, _inputs: Any, output: Tensor) -> Tensor:
        gives[name].append(output.detach().requires_grad_())
        return gives[name][-1].clone()  # nothing may work in place on what is kept

    def carry(name: str, _module: nn.Module, _inputs: Any, output: Tensor) -> Tensor:
        between[name].append(output)
        return output.clone()

    handles = []
    for name, module in model.named_modules():
        if isinstance(module, TWO_SIDES_IN_ONE) or is_depthwise(module):
            handles.append(module.register_forward_hook(partial(carry, name)))
        elif isinstance(module, PRODUCERS):
            handles.append(module.register_forward_pre_hook(partial(read, name), with_kwargs=True))
            handles.append(module.register_forward_hook(partial(give, name)))
    try:
        with torch.enable_grad():
            forward(model, image)
    finally:
        for handle in handles:
            handle.remove()
    return reads, gives, between


def _overlap(first: Mapping[str, Tensor], second: Mapping[str, Tensor]) -> bool:
    return any(bool((first[name] & second[name]).any()) for name in first.keys() & second.keys())


def _connected(reached: Tensor) -> Tensor:
    """Return the number of the component of each row, (rows,), of which some share a column."""
    together = reached.float() @ reached.float().T > 0
    while not torch.equal(further := together.float() @ together.float() > 0, together):
        together = further
    numbers: Tensor = torch.unique(together.int().argmax(1), return_inverse=True)[1]
    return numbers
