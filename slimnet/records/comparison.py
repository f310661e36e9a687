"""What ``compare`` tells: how metrics order channels against the full oracle."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


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
