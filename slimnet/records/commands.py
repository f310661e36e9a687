"""The record that each command returns."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from torch import nn

from slimnet.records.data import Frozen, Plan, Shapes
from slimnet.records.measured import (
    Artefacts,
    ClassDrop,
    Confirmation,
    Drop,
    Int8,
    Latency,
    Parity,
    PredictionCheck,
    Size,
)
from slimnet.records.search import Trajectory


@dataclass(frozen=True)
class Goal:
    """A goal that the user set, and whether the result meets it.

    ``name`` is that of the option, or ``baseline_...`` for a comparison with an earlier report.
    ``wanted`` is a maximum, or a minimum if ``at_least``. ``got`` is None if it was not measured;
    the goal is then missed. ``unit`` names the unit of both.
    """

    name: str
    wanted: int | float
    got: int | float | None
    unit: str
    met: bool
    at_least: bool = False


@dataclass(frozen=True)
class BranchResult:
    """A branch of the original network, and whether it is gone from the slim one.

    ``name`` is that of one of its groups. If the branch is gone, nothing is left of ``layers``, and
    only the bias of the layers ``constant``. Where ``reason`` says why the branch cannot go, there
    is nothing but the name.
    """

    name: str
    layers: tuple[str, ...] = ()
    constant: tuple[str, ...] = ()
    gone: bool = False
    reason: str = ""


@dataclass(frozen=True)
class Report:
    """The content of ``report.json``, field by field; ``schema_version`` numbers its form.

    ``verdict`` is "confirmed" if the drop is within the budget with the confidence asked for, as
    images that decided nothing show; "estimated" if only the selection images say so; "missed" if
    no slimmer network could be confirmed, and the result is the original; "unchanged" if nothing
    was found that could go. ``selection_drop`` is a plain estimate on images that the search
    looked at again and again; ``confirmation_drop`` and ``test_drop`` are None without such images.
    ``class_drops`` are the classes that lost most, on the same images as ``drop``.
    ``channels_per_layer`` maps each layer to its output channels in the original and in the slim
    network; a layer with 0 is gone. ``branches`` is empty if branches were not to go.
    ``run_sha256`` is one hash of everything the run depends on: model, data, options,
    versions and machine. A run with the same hash would give the same result. It is None if some
    of that cannot be hashed.
    """

    schema_version: int
    slimnet_version: str
    command: str
    source: str
    source_sha256: str | None
    plan_sha256: str
    settings: Mapping[str, Any]
    data: Mapping[str, Any]
    environment: Mapping[str, Any]
    frozen: tuple[Frozen, ...]
    channels_per_layer: Mapping[str, tuple[int, int]]
    trajectory: Trajectory
    original_size: Size
    slim_size: Size
    verdict: Literal["confirmed", "estimated", "missed", "unchanged"]
    selection_drop: Drop
    masked_slim: Parity
    artefacts: Artefacts
    latency: tuple[Latency, ...]
    notes: tuple[str, ...]
    seconds: Mapping[str, float]
    prediction: PredictionCheck | None = None
    goals: tuple[Goal, ...] = ()
    int8: Int8 | None = None
    run_sha256: str | None = None
    branches: tuple[BranchResult, ...] = ()
    confirmation_drop: Drop | None = None
    test_drop: Drop | None = None
    confirmation: Confirmation | None = None
    class_drops: tuple[ClassDrop, ...] = ()

    @property
    def drop(self) -> Drop:
        """The drop on the images that decided least: confirmation images, or selection images."""
        return self.confirmation_drop or self.selection_drop


@dataclass(frozen=True)
class Result:
    """The result of ``compress``: the slim network, and its folder (None: nothing was written).

    ``earlier`` is True if the folder held this result already and nothing was done again.
    """

    model: nn.Module
    plan: Plan
    report: Report
    folder: Path | None
    earlier: bool = False


@dataclass(frozen=True)
class GroupOffer:
    """A group of the network, and how much goes with one of its units.

    ``layers`` maps each layer that makes channels of the group to their count; ``channels`` is the
    sum. ``parameters_per_unit`` and ``macs_per_unit`` are means over the units. The MACs are those
    of convolutions and linear layers for one image.
    """

    layers: Mapping[str, int]
    channels: int
    units: int
    parameters_per_unit: float
    macs_per_unit: float


@dataclass(frozen=True)
class BranchOffer:
    """A branch of the network that can go whole, or a reason why it cannot.

    ``name`` is one of its layers. Nothing is left of ``layers``, and only the bias of the layers
    ``constant``. ``macs_percent`` is the share of the network's MACs that goes. Where ``reason``
    says why the branch cannot go, there is nothing but the name.
    """

    name: str
    layers: tuple[str, ...] = ()
    constant: tuple[str, ...] = ()
    macs_percent: float = 0.0
    reason: str = ""


@dataclass(frozen=True)
class Inspection:
    """How much slimming could remove from a network at most.

    ``input_shape`` is the shape of one input, without the batch axis; of several,
    a list of them. ``layers``, ``seed`` and ``keep`` are the options of these names.
    ``smallest_size`` is the size with every group down to the fewest units that leave each of its
    layers a channel; the ``removable_`` shares are gone then.
    ``channels`` counts the output channels of all convolutions and linear layers, and
    ``prunable_channels`` those that are in a group. Of the ``branches``, those without a reason can
    go whole.
    """

    schema_version: int
    slimnet_version: str
    source: str
    source_sha256: str | None
    input_shape: Shapes
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
    branches: tuple[BranchOffer, ...] = ()
    keep: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Application:
    """The report of ``apply``: a plan applied to a model file with that file's own weights.

    ``input_shape`` is the shape of one input, without the batch axis; of several,
    a list of them. ``plan_source_sha256`` is the hash of the model file that the plan was
    made for, None if the plan does not say.
    """

    schema_version: int
    slimnet_version: str
    source: str
    source_sha256: str | None
    plan_sha256: str
    plan_source_sha256: str | None
    input_shape: Shapes
    input_shape_guessed: bool
    original_size: Size
    slim_size: Size
    masked_slim: Parity
    artefacts: Artefacts
    notes: tuple[str, ...]
    environment: Mapping[str, Any]


@dataclass(frozen=True)
class Applied:
    """The result of ``apply``: the slim network, and its folder (None: nothing was written)."""

    model: nn.Module
    plan: Plan
    report: Application
    folder: Path | None


@dataclass(frozen=True)
class LayerLatency:
    """The time of a layer in both networks; None if a network has no layer of that name.

    ``layer`` is its name in both files. It is empty for nodes whose names the files do not share:
    these are summed up by ``operator``.
    """

    runtime: str
    batch_size: int
    layer: str
    operator: str
    original_ms: float | None
    slim_ms: float | None


@dataclass(frozen=True)
class Skipped:
    """A timing that was asked for and left out, and why."""

    what: str
    reason: str


@dataclass(frozen=True)
class Benchmark:
    """Timings of two networks, taken in turns.

    ``input_shapes`` maps each input to its shape; None is the batch axis. ``warnings`` are
    sentences that say which timings cannot be trusted.
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
    """One check of ``verify``: its name, whether it holds, and a sentence on what was found."""

    name: str
    holds: bool
    seen: str


@dataclass(frozen=True)
class Verification:
    """The result of ``verify``: all checks of a finished folder."""

    folder: str
    checks: tuple[Check, ...]

    @property
    def holds(self) -> bool:
        """Whether every check holds."""
        return all(check.holds for check in self.checks)
