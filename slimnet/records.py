"""The records that stages hand to one another. Units stand in the field names."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from torch import Tensor, nn

Batch = tuple[Tensor, Tensor]
"""Preprocessed inputs (images, ...) and labels (images,) int64."""


class Batches(Protocol):
    """Something that can be iterated over again and again, always giving the same batches."""

    def __iter__(self) -> Iterator[Batch]: ...


@dataclass(frozen=True)
class Split:
    """One part of the data. ``images`` is how many images its batches hold together."""

    name: str
    images: int
    batches: Batches


@dataclass(frozen=True)
class Splits:
    """Calibration: saliency and oracle. Selection: the budget. Test: the final report only.

    ``description`` says in one sentence where each part came from. ``classes`` is the number of
    classes where the data names them (image folders), else None. ``preprocessing`` is how pixels
    became inputs, as it goes into the report.
    """

    calibration: Split
    selection: Split
    test: Split
    description: str
    classes: int | None
    preprocessing: Mapping[str, Any]


@dataclass(frozen=True)
class LoadedModel:
    """A trained network in eval mode on the CPU, and where it came from.

    ``sha256`` is the file's hash, or None for a live module. ``source`` names it for the report.
    """

    model: nn.Module
    source: str
    sha256: str | None


@dataclass(frozen=True)
class Size:
    """What a network holds and does. ``macs`` is multiply-accumulates for one image."""

    parameters: int
    conv_weights: int
    macs: int


@dataclass(frozen=True)
class Drop:
    """A paired drop of accuracy, original minus slim, in percentage points, on ``images`` images.

    ``lower_points`` and ``upper_points`` are one-sided bounds, each at ``confidence``.
    """

    original_percent: float
    slim_percent: float
    points: float
    lower_points: float
    upper_points: float
    confidence: float
    images: int


@dataclass(frozen=True)
class Candidate:
    """Units that a metric proposed as one set, and the change of the loss that was measured.

    ``channels`` maps a group's name to units of it, in the original numbering: channels of its
    layers, except where a grouped convolution makes one unit of several.
    """

    metric: str
    channels: Mapping[str, tuple[int, ...]]
    sensitivity: float


@dataclass(frozen=True)
class Step:
    """One step of the trajectory: what was measured, what was removed, and what that cost.

    A step is ``taken_back`` where it broke the budget and smaller ones were tried in its place.
    """

    number: int
    candidates: tuple[Candidate, ...]
    chosen: int
    channels_removed: int
    conv_weights_removed_percent: float
    parameters_removed_percent: float
    calibration_loss: float
    drop: Drop
    within_budget: bool
    taken_back: bool
    seconds: float


@dataclass(frozen=True)
class Frozen:
    """A layer none of whose output channels may be removed, and why."""

    layer: str
    channels: int
    reason: str


Plan = Mapping[str, Mapping[str, tuple[int, ...]]]
"""Which indices go: module name -> {"out": indices, "in": indices}, sorted, original numbering."""


@dataclass(frozen=True)
class Trajectory:
    """The whole search: every step, the number of the last one kept (0: none), why it ended.

    The plan holds the channels of the steps up to that one that were not taken back.
    """

    steps: tuple[Step, ...]
    kept_steps: int
    stopped_because: str
    plan: Plan


@dataclass(frozen=True)
class Parity:
    """How far two executions of the same function are apart, as a share of the output's scale."""

    relative_error: float
    tolerance: float
    images: int


@dataclass(frozen=True)
class OnnxFile:
    """An ONNX file that was written, checked and run. ``parity`` holds one entry a batch size."""

    path: Path
    bytes: int
    sha256: str
    opset: int
    parity: Mapping[int, Parity]


@dataclass(frozen=True)
class Artefacts:
    """What was written beside the report: both ONNX files, the .pt2's parity, all files' hashes."""

    original_onnx: OnnxFile
    slim_onnx: OnnxFile
    slim_program: Parity
    sha256: Mapping[str, str]


@dataclass(frozen=True)
class Latency:
    """Interleaved timings of original and slim on one runtime at one batch size.

    ``speedup`` is the ratio of medians, with a 95 % interval. ``measurable`` is False when the
    interval holds 1.
    """

    runtime: str
    threads: int
    batch_size: int
    original_samples_ms: tuple[float, ...]
    slim_samples_ms: tuple[float, ...]
    original_median_ms: float
    slim_median_ms: float
    speedup: float
    speedup_low: float
    speedup_high: float
    measurable: bool


@dataclass(frozen=True)
class Report:
    """Everything that ``report.json`` holds, field by field; ``schema_version`` names its form."""

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
    selection_drop: Drop
    test_drop: Drop
    masked_slim: Parity
    artefacts: Artefacts
    latency: tuple[Latency, ...]
    notes: tuple[str, ...]
    seconds: Mapping[str, float]


@dataclass(frozen=True)
class Result:
    """What ``compress`` gives back: the slim network, and where it was written (None: nowhere)."""

    model: nn.Module
    plan: Plan
    report: Report
    folder: Path | None
