"""The records that stages hand to one another. Units stand in the field names."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from torch import Tensor, nn

Batch = tuple[Tensor, Tensor]
"""Preprocessed inputs (images, ...) and labels (images,) int64."""


Inputs = Tensor | tuple[Tensor, ...]
"""What a network reads, (images, ...): one tensor, or several as positional arguments."""


class Batches(Protocol):
    """Something that can be iterated over again and again, always giving the same batches.

    They are ``Batch`` for classification, and whatever the data give for a task of the user's own.
    """

    def __iter__(self) -> Iterator[Any]: ...


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

    ``sha256`` is the file's hash, or None for a live module. ``source`` names it for the report,
    which gives the ``notes`` too.
    """

    model: nn.Module
    source: str
    sha256: str | None
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Size:
    """What a network holds and does. ``macs`` is multiply-accumulates for one image."""

    parameters: int
    conv_weights: int
    macs: int


@dataclass(frozen=True)
class Drop:
    """A paired drop of ``quantity``, original minus slim, in points, on ``images`` images.

    ``lower_points`` and ``upper_points`` are one-sided bounds, each at ``confidence``; ``bounds``
    says how they were made.
    """

    original_percent: float
    slim_percent: float
    points: float
    lower_points: float
    upper_points: float
    confidence: float
    images: int
    quantity: str = "accuracy"
    bounds: str = "Tango's score limits for paired proportions, image by image"


@dataclass(frozen=True)
class Sensitivity:
    """L(Θ − Θ_c) − L(Θ) in nats, measured on so many images, the hardest ones.

    They are fewer than the oracle's where it was clear who wins; the others count as unchanged.
    ``nats`` is inf where the loss is not a number.
    """

    nats: float
    images: int


@dataclass(frozen=True)
class Candidate:
    """Units that a metric proposed as one set, and the change of the loss that was measured.

    ``channels`` maps a group's name to units of it, in the original numbering: channels of its
    layers, except where a grouped convolution makes one unit of several. ``sensitivity`` is in
    nats, measured on ``images`` images.
    """

    metric: str
    channels: Mapping[str, tuple[int, ...]]
    sensitivity: float
    images: int


@dataclass(frozen=True)
class FineTuning:
    """What a fine-tuning did; the losses are means over images in nats.

    ``epoch_losses_nats`` are of the images learnt from, task and distillation together.
    ``loss_before_nats`` and ``loss_after_nats`` are the cross-entropy, in eval mode, of images
    held back from it. ``augmentations`` names what was done to the images. The old weights stand
    where ``undone_because`` says why; it is empty where the new ones were kept.
    """

    epoch_losses_nats: tuple[float, ...]
    loss_before_nats: float
    loss_after_nats: float
    learning_images: int
    judging_images: int
    augmentations: tuple[str, ...]
    undone_because: str

    @property
    def kept(self) -> bool:
        """Whether the network has new weights."""
        return not self.undone_because


@dataclass(frozen=True)
class Step:
    """One step of the trajectory: what was measured, what was removed, and what that cost.

    A step is ``taken_back`` where it broke the budget and the search went another way.
    ``recovered_by`` names what gave accuracy back after it, beside the repair.
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
    recovered_by: tuple[str, ...] = ()


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

    ``source_sha256`` is the hash of the model file that the plan was made for, or None.
    """

    plan: Plan
    channels: Channels
    source_sha256: str | None


@dataclass(frozen=True)
class PredictedLatency:
    """What the search took original and slim network to need for one batch, from layer times.

    ``corrections`` is how often these were measured anew, inside the network as it was by then.
    """

    original_ms: float
    slim_ms: float
    corrections: int


@dataclass(frozen=True)
class Trajectory:
    """The whole search: every step, the number of the last one kept (0: none), why it ended.

    The plan holds the channels of the steps up to that one that were not taken back. There is no
    prediction where the search did not count time. ``finished_by`` names what gave accuracy back
    after the last step, and ``fine_tunings`` holds every round of training, kept or not, by the
    number of the step that it came after. ``notes`` go into the report's.
    The steps up to ``resumed_after_step`` (0: none) were measured by a run that was interrupted.
    """

    steps: tuple[Step, ...]
    kept_steps: int
    stopped_because: str
    plan: Plan
    predicted: PredictedLatency | None = None
    finished_by: tuple[str, ...] = ()
    fine_tunings: Mapping[int, FineTuning] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    resumed_after_step: int = 0


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
class Int8:
    """The slim network in int8, as far as it got: ``reason`` says why it is not shipped.

    ``ranges`` is how the range of each tensor follows from its values, and ``distances`` how far
    the outputs were from slim.onnx's by each way to do so, on calibration images, as a share of
    their own root mean square. ``numbers`` says which ones they are. The drops are the file's in
    ONNX Runtime, from the original. In the latencies the slim one is the int8 file, the original
    the network or slim.onnx.
    """

    shipped: bool = False
    reason: str = ""
    ranges: str = ""
    numbers: str = ""
    distances: Mapping[str, float] = field(default_factory=dict)
    bytes: int | None = None
    selection_drop: Drop | None = None
    test_drop: Drop | None = None
    against_original: tuple[Latency, ...] = ()
    against_slim: tuple[Latency, ...] = ()


@dataclass(frozen=True)
class PredictionCheck:
    """What the search predicted beside what was measured, on its runtime and at its batch size.

    ``off_percent`` is how much the measured speed-up is above (+) or below (-) the predicted one.
    """

    runtime: str
    batch_size: int
    predicted_original_ms: float
    predicted_slim_ms: float
    measured_original_ms: float
    measured_slim_ms: float
    predicted_speedup: float
    measured_speedup: float
    off_percent: float
    corrections: int


@dataclass(frozen=True)
class Goal:
    """What the user asked of the result, and what came of it.

    ``name`` is the dial's, or ``baseline_...`` for what is compared with an earlier report. ``got``
    is None where it was not measured, which counts as missed; ``unit`` says what both figures are.
    ``met`` means no more than ``wanted``, or no less where it is ``at_least`` that.
    """

    name: str
    wanted: float
    got: float | None
    unit: str
    met: bool
    at_least: bool = False


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
    prediction: PredictionCheck | None = None
    goals: tuple[Goal, ...] = ()
    int8: Int8 | None = None


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
class Agreement:
    """How well two orders of units agree, -1 to 1; None where one of them is no order.

    ``spearman`` is the correlation of the ranks, ``kendall`` is tau-b.
    """

    spearman: float | None
    kendall: float | None


@dataclass(frozen=True)
class MetricAgreement:
    """How well one metric's order of units agrees with the oracle's.

    ``spearman_interval`` is the 95 % interval of ``overall.spearman``; ``layers`` has one entry a
    group, by its name, and ``layers_mean`` is their mean. ``lowest_shared_percent`` is what share
    of the oracle's k lowest units the metric has among its own k lowest. ``seconds`` is how long
    the metric takes alone, its own pass over the images included.
    """

    metric: str
    overall: Agreement
    spearman_interval: tuple[float, float] | None
    layers: Mapping[str, Agreement]
    layers_mean: Agreement
    lowest_shared_percent: float
    seconds: float


@dataclass(frozen=True)
class RandomAgreement:
    """How well ``orders`` orders at random agree with the oracle's: what zero looks like.

    Intervals hold the middle 95 % of them.
    """

    orders: int
    spearman: float | None
    spearman_interval: tuple[float, float] | None
    layers_spearman_interval: tuple[float, float] | None
    lowest_shared_percent: float
    lowest_shared_percent_interval: tuple[float, float]


@dataclass(frozen=True)
class MeasuredGroup:
    """A group of which the oracle has removed units, one at a time.

    ``layers`` make its channels; ``units`` is how many it has; ``sensitivities_nats`` maps those
    that were measured to the change of the loss, None where the loss was no number.
    """

    layers: tuple[str, ...]
    units: int
    sensitivities_nats: Mapping[int, float | None]


@dataclass(frozen=True)
class OracleProgress:
    """How many units the full oracle has measured, of how many; the current ones by their share."""

    done: float
    units: int


@dataclass(frozen=True)
class Comparison:
    """How well saliency metrics order units, against the measured loss of removing each alone.

    ``images`` and ``loss_nats`` are the oracle's images and the loss on them with nothing removed.
    ``units_measured`` of ``units`` were, ``lowest`` of these is the k of the metrics' shares.
    ``oracle_halves`` is how well the oracle on one half of the images agrees with itself on the
    other half: the noise of the images. ``left_out`` maps metrics to why.
    """

    schema_version: int
    slimnet_version: str
    source: str
    source_sha256: str | None
    data: str
    settings: Mapping[str, Any]
    repaired: bool
    images: int
    loss_nats: float
    units: int
    units_measured: int
    lowest: int
    metrics: tuple[MetricAgreement, ...]
    left_out: Mapping[str, str]
    random: RandomAgreement
    oracle_halves: Agreement
    groups: Mapping[str, MeasuredGroup]
    oracle_seconds: float
    environment: Mapping[str, Any]
    seconds: float


@dataclass(frozen=True)
class Result:
    """What ``compress`` gives back: the slim network, and where it was written (None: nowhere)."""

    model: nn.Module
    plan: Plan
    report: Report
    folder: Path | None


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
class NetworkFile:
    """A network to be timed: its ONNX file and, where it came in one, slimnet's folder.

    ``is_original`` tells the folder's original.onnx from its slim.onnx.
    """

    name: str
    onnx: Path
    folder: Path | None
    is_original: bool


@dataclass(frozen=True)
class OnnxInput:
    """One input of an ONNX file. ``shape`` has the batch axis first; None is an axis of any size.

    ``dtype`` is numpy's name of its type.
    """

    name: str
    dtype: str
    shape: tuple[int | None, ...]


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
