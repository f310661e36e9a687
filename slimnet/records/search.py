"""How the search went, step by step, and how well metrics agree with the full oracle."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from slimnet.records.data import Plan
from slimnet.records.measured import Drop, FloatOrNan, PredictedLatency

REFIT, CLASSIFIER, NORM_STATISTICS = "refit", "classifier", "norm statistics"
FINE_TUNING = "fine-tuning"
"""Values of ``recovered_by`` and ``finished_by``: what gave accuracy back, beside the repair."""


@dataclass(frozen=True)
class Candidate:
    """Units that a metric proposed for removal together, and the sensitivity that was measured.

    ``metric`` is "branch" where all units of some groups go. ``channels`` maps the name of a group
    to its units, in the original numbering. ``sensitivity`` is the change of the loss with
    ``--step``, in nats unless the loss is your own; in rounds it is the change of the
    distance from the original's outputs, a share of their mean square without unit, less what a
    refit takes back. It is measured on ``images`` images.
    """

    metric: str
    channels: Mapping[str, tuple[int, ...]]
    sensitivity: FloatOrNan
    images: int


@dataclass(frozen=True)
class FineTuning:
    """One round of fine-tuning. Losses are means over images in nats.

    ``epoch_losses_nats`` are those of the training, task and distillation together.
    ``loss_before_nats`` and ``loss_after_nats`` are the task's loss in eval mode on
    ``judging_images``, which the round did not learn from. ``augmentations`` names the changes
    made to images. ``undone_because`` is empty if the new weights were kept.
    """

    epoch_losses_nats: tuple[FloatOrNan, ...]
    loss_before_nats: FloatOrNan
    loss_after_nats: FloatOrNan
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
    """One step of the search: the candidates measured, those removed, and their cost.

    ``chosen`` are indices of ``candidates``. The removed shares and the drop are those of the whole
    network after the step. A step is ``taken_back`` if it broke the budget and the search went
    another way, or if a larger choice from the same table took its place. ``recovered_by`` names
    what gave accuracy back after it, beside the repair.
    """

    number: int
    candidates: tuple[Candidate, ...]
    chosen: tuple[int, ...]
    channels_removed: int
    conv_weights_removed_percent: float
    parameters_removed_percent: float
    calibration_loss: FloatOrNan
    drop: Drop
    within_budget: bool
    taken_back: bool
    seconds: float
    recovered_by: tuple[str, ...] = ()


@dataclass(frozen=True)
class LayerProfile:
    """The time of each layer inside one network, and of the rest of it under "".

    ``widths`` maps every convolution and linear layer to its inputs and outputs.
    """

    widths: Mapping[str, tuple[int, int]]
    milliseconds: Mapping[str, float]


@dataclass(frozen=True)
class MeasuredTable:
    """The layer times that a search went by. ``profiles`` begin with the network it began with.

    ``measured_on`` names the runtime, its threads and version, and the processor.
    ``paying_widths`` ascend.
    """

    measured_on: str
    paying_widths: tuple[int, ...]
    profiles: tuple[LayerProfile, ...]


@dataclass(frozen=True)
class Trajectory:
    """The whole search. ``kept_steps`` is the number of the last step kept, 0 for none.

    ``plan`` holds the channels of all steps up to that one, without the steps taken back.
    ``predicted`` is None if the search did not predict latency. ``finished_by`` names what gave
    accuracy back after the last step. ``fine_tunings`` maps the number of a step to the fine-tuning
    after it, kept or not. ``notes`` go into the report. An interrupted run measured the steps up to
    ``resumed_after_step`` (0: none). ``latency_table`` is None if the objective was not latency.
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
    latency_table: MeasuredTable | None = None

    @property
    def standing_steps(self) -> tuple[Step, ...]:
        """The steps whose removals are in the plan."""
        return tuple(s for s in self.steps if s.number <= self.kept_steps and not s.taken_back)


@dataclass(frozen=True)
class Agreement:
    """How well two orders of units agree, -1 to 1; None if one of them is constant.

    ``spearman`` is the correlation of the ranks, ``kendall`` is tau-b.
    """

    spearman: float | None
    kendall: float | None


@dataclass(frozen=True)
class MetricAgreement:
    """How well one metric's order of units agrees with the oracle's.

    ``layers`` has an entry for each group, by its name, and ``layers_mean`` is their mean.
    ``lowest_shared_percent`` is the share of the oracle's k lowest units that are among the
    metric's k lowest. ``seconds`` is the time that the metric takes alone, with its own pass over
    the images.
    """

    metric: str
    overall: Agreement
    layers: Mapping[str, Agreement]
    layers_mean: Agreement
    lowest_shared_percent: float
    seconds: float


@dataclass(frozen=True)
class MeasuredGroup:
    """A group that the full oracle measured, unit by unit.

    ``layers`` make its channels; ``units`` is how many it has. ``sensitivities_nats`` maps each
    measured unit to the change of the loss, None if the loss was NaN or infinite.
    """

    layers: tuple[str, ...]
    units: int
    sensitivities_nats: Mapping[int, float | None]


@dataclass(frozen=True)
class OracleProgress:
    """How many of ``units`` the full oracle has measured, with fractions for units under way."""

    done: float
    units: int


@dataclass(frozen=True)
class Comparison:
    """How well saliency metrics order units, compared with the full oracle.

    The oracle removes units one at a time and measures the loss on ``images`` images;
    ``loss_nats`` is the loss with nothing removed. It measured ``units_measured`` of ``units``, and
    ``lowest`` is the k of the shares. ``oracle_halves`` is how well the oracle on one half of the
    images agrees with the oracle on the other half: the noise of the images. ``left_out`` maps
    metrics that could not be compared to the reason.
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
    oracle_halves: Agreement
    groups: Mapping[str, MeasuredGroup]
    oracle_seconds: float
    environment: Mapping[str, Any]
    seconds: float
