"""Follow channels by derivatives, for layers that the dependency graph follows wrongly.

Every output of a layer or norm is replaced by noise. So the derivative of the next layer's input
shows which channels arrive there, and at which place. Two channels that arrive at one place go
together: summands, a value and its gate, halves of which the maximum is taken. Channels at the same
place of parts of equal size (``chunk``, ``split``, a slice, a view) go together too, since the code
takes parts of whatever size there is. The result still needs a proof: a size may be written into
the code.
"""

import math
from collections import defaultdict
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_leaves

from slimnet.execution import (
    BATCH_NORMS,
    GROUP_NORMS,
    channel_axis,
    channel_count,
    has_one_axis,
    output_channels,
    watching,
)
from slimnet.groups.arrivals import Draw, Source, Spread, decoded, in_two, reached_by, weighted
from slimnet.groups.graph import LOST, Entry, NotFollowedError, NotPrunableError
from slimnet.groups.group import connected
from slimnet.groups.nan_tracing import MIXED, different_halves
from slimnet.groups.probe import randomize
from slimnet.load import copied_in
from slimnet.tasks import fill_batch, forward, output_tensors

# Several images, since a maximum or a gate may hide a channel of a small map in one of them. Two of
# 224 x 224 show enough; of small ones, 16 cost no more. Guesses.
ELEMENTS, MIN_IMAGES, MAX_IMAGES = 2**16, 2, 16

VIEWS = ("view", "reshape", "unflatten")
TAKING_PARTS = (
    "chunk", "split", "tensor_split", "unsafe_chunk", "unsafe_split", "narrow", "__getitem__",
    *VIEWS,
)  # fmt: skip
ALL_AT_ONCE = (
    "its channels are mixed, or tied by a shuffle or by parts of equal size, before a layer reads "
    "them: they can only go all at once"
)
Side = tuple[str, Literal["in", "out", "both"]]
"""A module by name; norms and depthwise convolutions have the same channels on both sides."""

Pairs = tuple[Tensor, Tensor]
"""Nodes, and as many that each of them goes with; both int64 (pairs,)."""


@dataclass(frozen=True)
class _Read:
    """Values (..., channels along ``axis``, ...) that depend on the outputs before them.

    ``place`` is the name and the side of the module that reads them. Without one they are taken in
    parts: channel i goes with channel ``together[i]``, (channels,) int64.
    """

    values: Tensor
    axis: int
    place: Side | None = None
    together: Tensor | None = None


class Couplings:
    """Finds which channels of which layers go together; the model is not changed.

    If its code cannot be differentiated, no layer has entries.
    """

    def __init__(self, model: nn.Module, example: Any, seed: int) -> None:
        self._model = model
        self._between = [name for name, module in model.named_modules() if _passes_on(module)]
        self._layers = [name for name in output_channels(model) if name not in self._between]
        sides: list[Side] = [(name, "both") for name in self._between]
        sides += [(name, "out") for name in self._layers]
        sides += [(name, "in") for name in self._layers]
        self._count, self._nodes = 0, dict[Side, Tensor]()
        for name, side in sides:
            module = model.get_submodule(name)
            channels = channel_count(module, "in" if side == "in" else "out") or 0
            self._nodes[name, side] = self._count + torch.arange(channels)
            self._count += channels
        self._edges: list[Pairs] = []
        self._ends: set[str] = set()
        self._tied: set[str] = set()  # whose channels are all one unit
        self._norms: dict[str, set[str]] = defaultdict(set)
        self._readers: dict[str, set[str]] = defaultdict(set)
        try:
            self._follow(example, seed)
        except Exception:
            # the network's own code may refuse noise or derivatives in any way
            self._edges = []
        ends = [torch.cat(ends) for ends in zip(*self._edges, strict=True)]
        self._unit = connected(self._count, *ends) if ends else torch.arange(self._count)

    def entries(self, layer: str) -> list[Entry]:
        """Return everything that goes with the layer's channels.

        Raises:
            NotFollowedError: some channel is read by no layer, or all go together.
            NotPrunableError: the channels are those of the network's output.
        """
        if layer not in self._layers:
            raise NotFollowedError(LOST)
        outputs = [self._nodes[name, "out"] for name in self._layers]
        units = torch.unique(self._unit[self._nodes[layer, "out"]])
        while True:
            # layers that share a unit are of one group
            touched = [self._unit[n] for n in outputs if bool(self._in(n, units).any())]
            more = torch.unique(torch.cat([units, *touched]))
            if len(more) == len(units):
                break
            units = more
        if len(units) < 2:
            raise NotFollowedError(ALL_AT_ONCE)
        found, read = [], torch.zeros(len(units), dtype=torch.bool)
        for (name, side), nodes in self._nodes.items():
            index = self._in(nodes, units).nonzero().flatten()
            if not len(index):
                continue
            if side != "in" and name in self._ends:
                raise NotPrunableError("it makes the network's output")
            unit = torch.searchsorted(units, self._unit[nodes[index]])
            kind = type(self._model.get_submodule(name))
            found.append(Entry(name, kind, side == "in", index, unit, False))
            if side == "in":
                read[unit] = True
        if not bool(read.all()):
            raise NotFollowedError(LOST)
        return found

    def norm_after(self, layer: str) -> str | None:
        """Return the norm that alone reads this layer's output, and nothing else, or None."""
        norms = self._norms.get(layer, set())
        sharing = [name for name, others in self._readers.items() if others & norms]
        alone = self._readers[layer] == norms and len(norms) == len(sharing) == 1
        return next(iter(norms)) if alone else None

    def _in(self, nodes: Tensor, units: Tensor) -> Tensor:
        return torch.isin(self._unit[nodes], units)

    def _follow(self, example: Any, seed: int) -> None:
        model = copied_in(self._model, torch.float32).eval()
        randomize(model, seed)  # a scale of zero would hide what it scales
        for module in model.modules():
            if getattr(module, "inplace", False):
                module.inplace = False  # type: ignore[assignment]  # derivatives need the values
        elements = max(leaf[0].numel() for leaf in tree_leaves(example) if isinstance(leaf, Tensor))
        images = min(MAX_IMAGES, max(MIN_IMAGES, ELEMENTS // elements))
        draw = torch.Generator().manual_seed(seed)
        with torch.enable_grad():
            sources, reads, outputs = self._recorded(model, fill_batch(example, images), draw)
            for read in reads:
                self._edges += self._arriving(read, sources, draw)
            if outputs:
                total = torch.stack([weighted(part, draw) for part in outputs]).sum()
                self._ends = {source.name for source in reached_by(total, sources)}

    def _recorded(
        self, model: nn.Module, inputs: Any, draw: Draw
    ) -> tuple[list[Source], list[_Read], list[Tensor]]:
        """Return what layers and norms give (noise), what they read, and the network's outputs."""
        sources: list[Source] = []
        reads: list[_Read] = []
        last: list[Any] = ["", None]

        def read(name: str, module: nn.Module, values: Tensor) -> None:
            side: Literal["in", "both"] = "both" if name in between else "in"
            if isinstance(module, (*BATCH_NORMS, *GROUP_NORMS)) and values is last[1]:
                self._norms[last[0]].add(name)
            if values.requires_grad:
                # a copy, since later code may work in place on it
                reads.append(_Read(values.clone(), channel_axis(module, values), (name, side)))

        def write(name: str, module: nn.Module, _inputs: Tensor, output: Tensor) -> Tensor:
            noise = torch.rand(output.shape, generator=draw, dtype=output.dtype)
            # of both signs in turn: a ReLU passes one, and what is subtracted needs the other
            noise = noise.mul_(0.9).add_(0.1)
            noise[1::2].neg_()
            if channel_count(module, "out") != 1:  # a single one is often broadcast over others
                sources.append(Source(name, noise.requires_grad_(), channel_axis(module, noise)))
            passed = noise.clone()
            last[:] = name, passed
            return passed

        between = set(self._between)
        with watching(model, [*self._layers, *self._between], write, read), _Parts(reads):
            outputs = output_tensors(forward(model, inputs))
        return sources, reads, [part for part in outputs if part.requires_grad]

    def _arriving(self, read: _Read, sources: Sequence[Source], draw: Draw) -> Iterator[Pairs]:
        """Yield nodes (any,) int64 of channels, and as many nodes that each of them goes with."""
        values = read.values.movedim(read.axis, 0).flatten(1)
        count = len(values)
        places = self._nodes[read.place] if read.place else self._count + torch.arange(count)
        codes = different_halves(count)
        half, rest = (
            reached_by(weighted(values[rows], draw), sources) for rows in in_two(count, draw)
        )
        several = [s for s in half.keys() & rest.keys() if bool((half[s] & rest[s]).any())]
        if read.together is not None:
            if several:
                return  # the parts are of images or positions, not of channels
            self._count += count
            yield places, places[read.together]
        followed = [s for s in sources if s in half or s in rest]
        for source in followed:
            if read.place:
                self._readers[source.name].add(read.place[0])
        for source in several:
            # attention and the like: known at once, and following them is slow
            channels, own = half[source] | rest[source], self._outputs(source)
            if source.name in self._tied:
                mixed: Tensor | None = torch.ones(count, dtype=torch.bool)
            else:
                mixed = Spread(values, source).mixed_at(channels.nonzero().flatten(), draw)
            if mixed is None:
                continue
            followed.remove(source)
            yield _all_in_one(torch.cat([own[channels], places[mixed]]))
            if bool(channels.all()):
                self._tied.add(source.name)
        found = [reached_by(weighted(values[rows], draw), followed) for rows in codes if followed]
        for source in followed:
            channel, place = decoded(codes, [reached.get(source) for reached in found])
            own, one = self._outputs(source)[channel], place != MIXED
            yield own[one], places[place[one]]
            if not bool(one.all()):
                own = own[~one]
                at, number = Spread(values, source).channels_at(channel[~one], draw)
                one = number != MIXED
                yield own[number[one]], places[at[one]]
                if not bool(one.all()):
                    yield _all_in_one(torch.cat([own, places[at[~one]]]))

    def _outputs(self, source: Source) -> Tensor:
        """Return the nodes of a module's outputs, (channels,) int64."""
        side: Side = (source.name, "both")
        return self._nodes[side if side in self._nodes else (source.name, "out")]


class _Parts(TorchFunctionMode):
    """Adds to ``reads`` whatever is taken in parts of equal size along what may be channels."""

    def __init__(self, reads: list[_Read]) -> None:
        super().__init__()
        self._reads = reads

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        values = args[0] if args else (kwargs or {}).get("input")
        name = getattr(func, "__name__", "")
        takes_parts = name in TAKING_PARTS or func is torch.channel_shuffle
        if takes_parts and isinstance(values, Tensor) and values.requires_grad and values.ndim > 1:
            if func is torch.channel_shuffle:
                parts = args[1] if len(args) > 1 else kwargs["groups"]
                found = {1: (parts, values.shape[1] // parts)}
            else:
                pieces = result if isinstance(result, tuple | list) else (result,)
                tensors = [piece for piece in pieces if isinstance(piece, Tensor)]
                found = _split(values.shape, {piece.shape for piece in tensors})
            for axis, (outer, inner) in found.items():
                number = torch.arange(outer * inner)
                # of the two sizes in a view, the smaller one is likely to be written into the code
                blocks = name in VIEWS and outer > inner
                together = number - number % inner if blocks else number % inner
                self._reads.append(_Read(values.clone(), axis, together=together))
        return result


def _split(whole: torch.Size, pieces: Collection[torch.Size]) -> dict[int, tuple[int, int]]:
    """Return the axis that was split, if any, and how many parts of which size it has now."""
    if len(pieces) != 1:
        return {}
    piece = next(iter(pieces))
    for axis in {1, len(whole) - 1}:
        before, after = whole[:axis], whole[axis + 1 :]
        if len(piece) == len(whole):
            fits, size = piece[:axis] == before and piece[axis + 1 :] == after, piece[axis]
        else:
            end = len(piece) - len(after)
            fits = end - axis > 1 and piece[:axis] == before and piece[end:] == after
            size = math.prod(piece[axis + 1 : end])
        if fits and 0 < size < whole[axis] and whole[axis] % size == 0:
            return {axis: (whole[axis] // size, size)}
    return {}


def _passes_on(module: nn.Module) -> bool:
    """Return whether the module has the same channels on both sides, and numbers for each."""
    return has_one_axis(module) and channel_count(module, "out") is not None


def _all_in_one(nodes: Tensor) -> Pairs:
    """Return pairs that connect all of these nodes."""
    return nodes, nodes[:1].expand(len(nodes))
