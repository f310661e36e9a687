"""What the other commands tell: ``inspect``, ``apply``, ``bench`` and ``verify``."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import nn

from slimnet.records.artefacts import Artefacts
from slimnet.records.measured import Latency, Parity, Size
from slimnet.records.plan import Frozen, Plan


@dataclass(frozen=True)
class GroupOffer:
    """A group of the network as it is, and what goes with one unit of it alone.

    ``layers`` maps each layer that makes its channels to how many of them are the group's;
    ``channels`` is their sum. ``parameters_per_unit``, and ``macs_per_unit`` in convolutions and
    linear layers for one image, are means over the units where these differ.
    """

    layers: Mapping[str, int]
    channels: int
    units: int
    parameters_per_unit: float
    macs_per_unit: float


@dataclass(frozen=True)
class Inspection:
    """What slimming could take from a network at most; ``schema_version`` names its form.

    ``input_shape`` is that of one input. ``layers`` and ``seed`` are the dials of these names.
    ``smallest_size`` is what is left when every group is down to one unit, or to the few that
    leave each of its layers a channel; the ``removable_`` shares are what is gone then.
    ``channels`` are the output channels of all convolutions and linear layers; those that a group
    holds are prunable.
    """

    schema_version: int
    slimnet_version: str
    source: str
    source_sha256: str | None
    input_shape: tuple[int, ...]
    input_shape_guessed: bool
    layers: str
    seed: int
    groups: tuple[GroupOffer, ...]
    frozen: tuple[Frozen, ...]
    size: Size
    smallest_size: Size
    channels: int
    prunable_channels: int
    prunable_channels_percent: float
    removable_parameters_percent: float
    removable_conv_weights_percent: float
    removable_macs_percent: float
    environment: Mapping[str, Any]
    seconds: float


@dataclass(frozen=True)
class Application:
    """What ``apply`` reports: the plan on a model file, with that file's own weights.

    ``input_shape`` is that of one input. ``plan_source_sha256`` is the hash of the model file that
    the plan was made for, where it says. ``schema_version`` names the form.
    """

    schema_version: int
    slimnet_version: str
    source: str
    source_sha256: str | None
    plan_sha256: str
    plan_source_sha256: str | None
    input_shape: tuple[int, ...]
    input_shape_guessed: bool
    original_size: Size
    slim_size: Size
    masked_slim: Parity
    artefacts: Artefacts
    notes: tuple[str, ...]
    environment: Mapping[str, Any]


@dataclass(frozen=True)
class Applied:
    """What ``apply`` gives back: the slim network, and where it was written (None: nowhere)."""

    model: nn.Module
    plan: Plan
    report: Application
    folder: Path | None


@dataclass(frozen=True)
class LayerLatency:
    """How long a layer takes in both networks; None where one has nothing of that name.

    ``layer`` is the name of the layer or node in both files; it is empty where these have no name
    in common for it, and then all such nodes of one ``operator`` are counted together.
    """

    runtime: str
    batch_size: int
    layer: str
    operator: str
    original_ms: float | None
    slim_ms: float | None


@dataclass(frozen=True)
class Skipped:
    """What was asked for and could not be timed, and why."""

    what: str
    reason: str


@dataclass(frozen=True)
class Benchmark:
    """Two networks timed in turns; ``schema_version`` names the form.

    ``input_shapes`` are those of one batch, None standing for its size. ``warnings`` say in words
    where the timings cannot be trusted.
    """

    schema_version: int
    slimnet_version: str
    original: str
    slim: str
    input_shapes: Mapping[str, tuple[int | None, ...]]
    latency: tuple[Latency, ...]
    layers: tuple[LayerLatency, ...]
    skipped: tuple[Skipped, ...]
    warnings: tuple[str, ...]
    environment: Mapping[str, Any]
    seconds: float


@dataclass(frozen=True)
class Check:
    """One thing that was looked at again, whether it holds, and what was seen."""

    name: str
    holds: bool
    seen: str


@dataclass(frozen=True)
class Verification:
    """A finished folder, checked again."""

    folder: str
    checks: tuple[Check, ...]

    @property
    def holds(self) -> bool:
        """Whether every check holds."""
        return all(check.holds for check in self.checks)
