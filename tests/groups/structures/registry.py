"""What is expected of a structure: which layers can lose units, which cannot, and why not."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

Words = tuple[str, ...]
Build = Callable[[], nn.Module]
OUTPUT: Words = ("output",)
PROOF: Words = ("proof", "proven", "prove", "mask", "differ")
FOLLOW: Words = ("follow", "trace", "layer", "reads", "graph", "fewer channels")
ALL: list[Structure] = []


def images() -> Tensor:
    return torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(0))


@dataclass(frozen=True)
class Structure:
    """One network and its verdict.

    Layers in ``prunable`` must be offered, and those in ``never`` be frozen. All others may be
    either: right, or frozen. Where a layer in ``never`` or ``words`` is frozen, its reason must
    hold one of the words, in small or capital letters.
    """

    name: str
    build: Build
    prunable: Words = ()
    never: Mapping[str, Words] = field(default_factory=dict)
    words: Mapping[str, Words] = field(default_factory=dict)
    example: Callable[[], object] = images


def structure(
    prunable: str = "",
    never: Mapping[str, Words] | None = None,
    words: Mapping[str, Words] | None = None,
    example: Callable[[], object] = images,
) -> Callable[[Build], Build]:
    """Put a class or function that makes a network among the structures; ``head`` is its output."""

    def put(build: Build) -> Build:
        frozen = {"head": OUTPUT} if never is None else never
        ALL.append(
            Structure(build.__name__, build, tuple(prunable.split()), frozen, words or {}, example)
        )
        return build

    return put


class Net(nn.Module):
    """Layers by name; ``forward`` is the structure."""

    def __init__(self, **layers: nn.Module) -> None:
        super().__init__()
        for name, layer in layers.items():
            self.add_module(name, layer)
