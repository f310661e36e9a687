"""The search as it went: candidates, steps, rounds of training."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from slimnet.records.measured import Drop, PredictedLatency
from slimnet.records.plan import Plan


@dataclass(frozen=True)
class Candidate:
    """Units that a metric proposed as one set, and the change of the loss that was measured.

    ``channels`` maps a group's name to units of it, in the original numbering: channels of its
    layers, except where a grouped convolution makes one unit of several. ``sensitivity`` is in
    nats, measured on ``images`` images; on none where it is that of one of the last few steps, when
    it was far too high to be taken at this one.
    """

    metric: str
    channels: Mapping[str, tuple[int, ...]]
    sensitivity: float
    images: int


@dataclass(frozen=True)
class FineTuning:
    """What a fine-tuning did; the losses are means over images in nats.

    ``epoch_losses_nats`` are of the images learnt from, task and distillation together.
    ``loss_before_nats`` and ``loss_after_nats`` are the task's loss, in eval mode, of images held
    back from it. ``augmentations`` names what was done to the images. The old weights stand
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
    ``recovered_by`` names what gave accuracy back after it, beside the repair, and ``given_back``
    holds, by group, units that earlier steps had removed and that are there again after this one.
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
    given_back: Mapping[str, tuple[int, ...]] = field(default_factory=dict)


@dataclass(frozen=True)
class Trajectory:
    """The whole search: every step, the number of the last one kept (0: none), why it ended.

    The plan holds the channels of the steps up to that one that were not taken back, less those
    that were given back. There is no prediction where the search did not count time.
    ``finished_by`` names what gave accuracy back after the last step, and ``fine_tunings`` holds
    every round of training, kept or not, by the number of the step that it came after. ``notes`` go
    into the report's.
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
