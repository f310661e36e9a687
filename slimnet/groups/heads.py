"""Find whole attention heads: blocks of channels that mix within themselves, but not with others.

Attention mixes the channels of one head, so no single channel can be removed. The layer behind the
attention reads heads as blocks of channels. The derivative of a block by the outputs of the layers
before it shows which queries, keys and values belong to the head. Heads are removable only if the
network's code infers their number from the width, as in ``view(batch, tokens, -1, head_size)``;
the proof (``provable``) shows whether it does.
"""

from collections import defaultdict, deque
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from slimnet.execution import channel_axis, has_one_axis, output_channels, watching
from slimnet.groups.graph import Entry
from slimnet.tasks import fill_batch, forward

Calls = dict[str, list[Tensor]]


def head_entries(model: nn.Module, example: Any, layers: Sequence[str]) -> list[list[Entry]]:
    """Return for each layer that reads heads of these layers the entries that go with each head.

    The model, in eval mode, is not changed. The list is empty if derivatives cannot be taken.
    """
    if not layers:
        return []
    try:
        reads, outputs, norms = _recorded(model, fill_batch(example, 1))
        found = [
            _Reader(model, name, calls[0], {**outputs, **norms}).entries()
            for name, calls in reads.items()
            if len(calls) == 1 and _reads_only(calls[0], layers, outputs)
        ]
    except Exception:  # the network's own code may refuse gradients in any way
        return []
    readers = [{entry.module for entry in entries} for entries in found]
    return [
        entries
        for entries, own in zip(found, readers, strict=True)
        # a layer with two readers would be in two groups
        if entries and sum(bool(own & others) for others in readers) == 1
    ]


class _Reader:
    """A layer that reads ``reads``, computed from ``sources``: the outputs of layers before it."""

    def __init__(self, model: nn.Module, name: str, reads: Tensor, sources: Calls) -> None:
        self._model, self._name = model, name
        axis = channel_axis(model.get_submodule(name), reads)
        self._channels = reads.movedim(axis, 0).flatten(1)
        self._sources = sources

    def entries(self) -> list[Entry]:
        """Return what goes with each head, or nothing if the channels form no heads."""
        last = len(self._channels) - 1
        if last < 1:
            return []
        first = self._dependence(slice(0, 1))
        # heads have several channels, and there are several heads
        if not self._shares(first, 1) or self._shares(first, last):
            return []
        within, beyond = 1, last  # the first head ends between these channels
        while beyond - within > 1:
            middle = (within + beyond) // 2
            if self._shares(first, middle):
                within = middle
            else:
                beyond = middle
        size = beyond
        if (last + 1) % size:
            return []
        return list(self._goes_with(size))

    def _shares(self, first: Mapping[str, Tensor], channel: int) -> bool:
        """Return whether the channel depends on some channel that ``first`` depends on."""
        other = self._dependence(slice(channel, channel + 1))
        return any(bool((first[name] & other[name]).any()) for name in first.keys() & other.keys())

    def _goes_with(self, size: int) -> Iterator[Entry]:
        """Yield the entries of heads of ``size`` channels; none if a source channel is shared."""
        blocks = [
            self._dependence(slice(start, start + size))
            for start in range(0, len(self._channels), size)
        ]
        if any(set(block) != set(blocks[0]) for block in blocks):
            return
        reached = {name: torch.stack([block[name] for block in blocks]) for name in blocks[0]}
        unit_of = _connected(torch.cat(list(reached.values()), 1))
        units = int(unit_of.max()) + 1
        owners = {
            name: torch.stack([read[unit_of == unit].any(0) for unit in range(units)])
            for name, read in reached.items()
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
        """Return on which outputs of each source these channels depend, (channels,) bool."""
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


def _reads_only(reads: Tensor, layers: Sequence[str], outputs: Calls) -> bool:
    """Return whether ``reads`` was computed from outputs of these layers and of no other layer."""
    layer_of = {id(output): name for name, calls in outputs.items() for output in calls}
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
    """Return the input and the output of every layer, and the outputs of norms between layers.

    Derivatives of an input end at the outputs of the layers before it.
    """
    reads: Calls = defaultdict(list)
    outputs: Calls = defaultdict(list)
    norms: Calls = defaultdict(list)

    def read(name: str, _: nn.Module, inputs: Tensor) -> None:
        reads[name].append(inputs)

    def cut_off(name: str, _module: nn.Module, _inputs: Tensor, output: Tensor) -> Tensor:
        outputs[name].append(output.detach().requires_grad_())
        return outputs[name][-1].clone()  # later code may work in place on it

    def pass_on(name: str, _module: nn.Module, _inputs: Tensor, output: Tensor) -> Tensor:
        norms[name].append(output)
        return output.clone()

    between = [name for name, module in model.named_modules() if has_one_axis(module)]
    layers = [name for name in output_channels(model) if name not in between]
    with (
        watching(model, between, after=pass_on),
        watching(model, layers, before=read, after=cut_off),
        torch.enable_grad(),
    ):
        forward(model, image)
    return reads, outputs, norms


def _connected(reached: Tensor) -> Tensor:
    """Return the component of each row, (rows,) int64; rows that share a column are connected."""
    together = reached.float() @ reached.float().T > 0
    while not torch.equal(further := together.float() @ together.float() > 0, together):
        together = further
    numbers: Tensor = torch.unique(together.int().argmax(1), return_inverse=True)[1]
    return numbers
