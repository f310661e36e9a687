"""Where channels arrive, by derivatives: from which, and at which places.

A random weighted sum of some places depends on a channel that arrives at one of them, and on no
other. As codes name the places, few sums show where every channel arrives.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from slimnet.groups.nan_tracing import decode, different_halves

Draw = torch.Generator
# Of pairs of channels that meet at one place, one such split leaves half together; few places that
# read pairs survive three, and only then look as if all channels were mixed there.
SPLITS = 3


@dataclass(frozen=True, eq=False)
class Source:
    """The noise that a module, by its name, gave in one call; its channels are along ``axis``."""

    name: str
    noise: Tensor
    axis: int


class Spread:
    """At which places each channel of a source arrives, for channels that arrive at several.

    The derivative of ``values``, (places, elements), by the source is linear in their weights. So
    its own derivative, by these weights, shows where some channels arrive.
    """

    def __init__(self, values: Tensor, source: Source) -> None:
        self._weights = torch.ones_like(values).requires_grad_()
        (linear,) = torch.autograd.grad(values, source.noise, self._weights, create_graph=True)
        self._linear = linear.movedim(source.axis, 0).flatten(1)

    def mixed_at(self, channels: Tensor, draw: Draw) -> Tensor | None:
        """Return at which places, (places,) bool, all channels are mixed; None if not at all."""
        for _ in range(SPLITS):
            parts = (channels[rows] for rows in in_two(len(channels), draw))
            one, other = (self._places(part, draw) for part in parts)
            if not torch.equal(one, other):
                return None
        return one

    def channels_at(self, channels: Tensor, draw: Draw) -> tuple[Tensor, Tensor]:
        """Return the places where these channels arrive, and the number of each one's, or MIXED."""
        codes = different_halves(len(channels))
        return decoded(codes, [self._places(channels[rows], draw) for rows in codes])

    def _places(self, channels: Tensor, draw: Draw) -> Tensor:
        total = weighted(self._linear[channels], draw)
        (arrives,) = torch.autograd.grad(total, self._weights, retain_graph=True)
        return arrives.ne(0).any(1)


def in_two(count: int, draw: Draw) -> tuple[Tensor, Tensor]:
    """Return a random half of ``count`` numbers, and the others, (count,) bool each."""
    one = torch.randperm(count, generator=draw) % 2 == 0
    return one, ~one


def reached_by(total: Tensor, sources: Sequence[Source]) -> dict[Source, Tensor]:
    """Return the sources that ``total`` depends on, and by which channels, (channels,) bool."""
    noises = [source.noise for source in sources]
    derivatives = torch.autograd.grad(total, noises, retain_graph=True, allow_unused=True)
    found = {}
    for source, derivative in zip(sources, derivatives, strict=True):
        if derivative is not None:
            channels = derivative.movedim(source.axis, 0).flatten(1).ne(0).any(1)
            if bool(channels.any()):
                found[source] = channels
    return found


def decoded(codes: Tensor, found: Sequence[Tensor | None]) -> tuple[Tensor, Tensor]:
    """Return the channels that some code has reached, and the number of each one's code, or MIXED.

    ``found`` holds for each row of the codes which channels were reached, (channels,) bool, or
    None for no channel.
    """
    nothing = torch.zeros_like(next(one for one in found if one is not None))
    bits = torch.stack([nothing if one is None else one for one in found])
    reached = bits.any(0).nonzero().flatten()
    return reached, decode(codes, bits[:, reached])


def weighted(values: Tensor, draw: Draw) -> Tensor:
    """Return a sum in which no two elements have the same weight: none cancels another."""
    return (values * torch.randn(values.shape, generator=draw, dtype=values.dtype)).sum()
