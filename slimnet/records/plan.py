"""Which channels go, and which may not."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Frozen:
    """A layer none of whose output channels may be removed, and why."""

    layer: str
    channels: int
    reason: str


Plan = Mapping[str, Mapping[str, tuple[int, ...]]]
"""Which indices go: module name -> {"out": indices, "in": indices}, sorted, original numbering."""


Channels = Mapping[str, Mapping[str, int]]
"""How many channels a layer has: module name -> {"out": count, "in": count}."""


@dataclass(frozen=True)
class PlanFile:
    """What a plan file says. ``channels`` are the network's wherever the plan removes some, or {}.

    ``source_sha256`` is the hash of the model file that the plan was made for, or None, and
    ``input_shape`` that of one input, without the batch axis, where there is one tensor.
    """

    plan: Plan
    channels: Channels
    source_sha256: str | None
    input_shape: tuple[int, ...] | None = None
