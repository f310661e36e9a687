"""Trace channels by NaNs, for networks that the dependency graph cannot follow.

Each output channel of every layer is set to NaN in one half of a batch's images, and each channel
has another half as its code. NaNs pass through all steps that work channel by channel. The next
layer records and removes them: the code found at its input channel names the channel that it reads.
Where channels were mixed, more than half of the images are NaN, and no code fits. The result still
needs a proof: code may hide NaNs, or treat them in its own way.
"""

import itertools
import math
from collections import defaultdict
from collections.abc import Sequence
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.utils import _pytree

from slimnet.execution import (
    BATCH_NORMS,
    channel_axis,
    has_one_axis,
    is_depthwise,
    output_channels,
    watching,
)
from slimnet.groups.graph import LOST, Entry, NotFollowedError
from slimnet.tasks import forward, output_tensors

IMAGES_AT_ONCE = 8  # a guess: at twice as many, memory doubles and little time is saved
MIXED = -1
Place = tuple[str, Literal["in", "out", "end"]]
"""A module's input or output, by name, or an output of the network."""


class NanTracer:
    """Finds where each layer's channels are read; the model is not changed.

    ``model`` must be in eval mode, with the images of a batch along its first axis. If its code
    fails on NaNs, no layer has entries.
    """

    def __init__(self, model: nn.Module, example: Any) -> None:
        self._channels = {
            name: channels
            for name, channels in output_channels(model).items()
            # a single channel cannot be removed, and is often broadcast over another layer's
            if channels > 1 and not is_depthwise(model.get_submodule(name))
        }
        self._kinds = {name: type(module) for name, module in model.named_modules()}
        ends = list(itertools.accumulate(self._channels.values(), initial=0))
        self._first = dict(zip(self._channels, ends, strict=False))
        self._codes = different_halves(ends[-1])
        self._norms: dict[str, set[str]] = defaultdict(set)
        passes = torch.split(self._codes, IMAGES_AT_ONCE)
        try:
            found = [self._pass(model, example, rows) for rows in passes]
            self._reads = {place: self._numbers([p[place] for p in found]) for place in found[0]}
        except Exception:
            # the network's own code fails on NaNs, or takes another path in each pass
            self._reads = {}

    def entries(self, layer: str) -> list[Entry]:
        """Return everything that goes with the layer's channels.

        Raises:
            NotFollowedError: some channel is read by no layer, or only mixed with others.
        """
        if layer not in self._first:
            raise NotFollowedError(LOST)
        first, whole = self._first[layer], torch.arange(self._channels[layer])
        found = [Entry(layer, self._kinds[layer], False, whole, whole, False)]
        read = torch.zeros(len(whole), dtype=torch.bool)
        for (name, side), numbers in self._reads.items():
            index = torch.nonzero((numbers >= first) & (numbers < first + len(whole))).flatten()
            if not len(index):
                continue
            if side == "end":
                raise NotFollowedError("it makes the network's output")
            unit = numbers[index] - first
            found.append(Entry(name, self._kinds[name], side == "in", index, unit, False))
            if side == "in":
                read[unit] = True
        if not bool(read.all()):
            raise NotFollowedError(LOST)
        return found

    def norm_after(self, layer: str) -> str | None:
        """Return the batch norm that directly follows this layer, and no other, or None."""
        norms = self._norms.get(layer, set())
        sharing = [name for name, others in self._norms.items() if others & norms]
        return next(iter(norms)) if len(norms) == len(sharing) == 1 else None

    def _numbers(self, passes: Sequence[Sequence[Tensor]]) -> Tensor:
        """Return which channel is read at each channel of one place, (channels,) int64."""
        calls = [torch.cat(parts) for parts in zip(*passes, strict=True)]
        numbers = torch.stack([decode(self._codes, call) for call in calls])
        return torch.where((numbers == numbers[:1]).all(0), numbers[0], MIXED)

    def _pass(self, model: nn.Module, example: Any, rows: Tensor) -> dict[Place, list[Tensor]]:
        """Run the model on one image for each row of the codes, (images, all channels) bool.

        Returns:
            By place, for each call, which images are NaN in which channel, (images, channels) bool.
        """
        seen: dict[Place, list[Tensor]] = defaultdict(list)
        # the first image has no NaNs; its values replace the NaNs of the others at each layer
        rows = torch.cat([torch.zeros_like(rows[:1]), rows])
        images = len(rows)
        last: list[Any] = ["", None]

        def read(name: str, module: nn.Module, inputs: Tensor) -> Tensor:
            nans, clean = _remove_nans(inputs, channel_axis(module, inputs), images)
            seen[name, "in"].append(nans)
            return clean

        def write(name: str, module: nn.Module, _: Tensor, output: Tensor) -> Tensor:
            codes = rows[:, self._first[name] :][:, : self._channels[name]]
            written = _with_nans(output, channel_axis(module, output), codes)
            last[:] = name, written
            return written

        def pass_on(name: str, module: nn.Module, inputs: Tensor, output: Tensor) -> None:
            seen[name, "out"].append(_remove_nans(output, 1, images)[0])
            if isinstance(module, BATCH_NORMS) and inputs is last[1]:
                self._norms[last[0]].add(name)
            last[:] = name, output

        between = [name for name, module in model.named_modules() if has_one_axis(module)]
        layers = [name for name in output_channels(model) if name not in between]
        with (
            watching(model, between, after=pass_on),
            watching(model, layers, before=read),
            watching(model, self._channels, after=write),
            torch.no_grad(),
        ):
            outputs = output_tensors(forward(model, _repeated(example, images)))
        for number, output in enumerate(outputs):
            for axis in {1, output.ndim - 1} if output.ndim > 1 else ():
                nans = _remove_nans(output, axis, images)[0]
                seen[f"{number}, axis {axis}", "end"].append(nans)
        return seen


def different_halves(count: int) -> Tensor:
    """Return ``count`` different halves of some images, (images, count) bool.

    No half contains another (Sperner's theorem), and the number of images is the smallest possible.
    """
    images = next(n for n in itertools.count(2, 2) if math.comb(n, n // 2) >= count)
    halves = list(itertools.islice(itertools.combinations(range(images), images // 2), count))
    codes = torch.zeros(count, images, dtype=torch.bool)
    return codes.scatter_(1, torch.tensor(halves), True).T


def decode(codes: Tensor, found: Tensor) -> Tensor:
    """Return the number of each column of ``found`` among the columns of ``codes``, or MIXED.

    Both are bool, (images, codes) and (images, columns).
    """
    weights = 2 ** torch.arange(len(found))
    known, order = (codes * weights[:, None]).sum(0).sort()
    keys = (found * weights[:, None]).sum(0)
    place = torch.searchsorted(known, keys).clamp_max(len(known) - 1)
    return torch.where(known[place] == keys, order[place], MIXED)


def _remove_nans(values: Tensor, axis: int, images: int) -> tuple[Tensor, Tensor]:
    """Return where channels hold NaNs, (images - 1, channels) bool, and the values without them.

    The first axis may hold several parts of each image, in order. Values that belong to no image,
    such as a table of positions, count as NaN everywhere.
    """
    if len(values) % images:
        return torch.ones(images - 1, values.shape[axis], dtype=torch.bool), values
    parts = values.reshape(images, -1, *values.shape[1:])
    nans = parts.isnan()
    clean = torch.where(nans, parts[:1], parts).reshape(values.shape)
    over = [d for d in range(1, parts.ndim) if d != axis + 1]
    return nans.sum(over).bool()[1:], clean


def _with_nans(values: Tensor, axis: int, codes: Tensor) -> Tensor:
    """Return a copy with NaNs where ``codes``, (images, channels) bool, are true."""
    if len(values) % len(codes):
        return values
    parts = values.reshape(len(codes), -1, *values.shape[1:])
    shape = [n if d in (0, axis + 1) else 1 for d, n in enumerate(parts.shape)]
    return parts.masked_fill(codes.reshape(shape), math.nan).reshape(values.shape)


def _repeated(example: Any, images: int) -> Any:
    """Return the first image of each input, ``images`` times."""

    def repeat(leaf: Any) -> Any:
        return leaf[:1].repeat_interleave(images, 0) if isinstance(leaf, Tensor) else leaf

    return _pytree.tree_map(repeat, example)
