"""What was measured, with its doubt: sizes, drops, latencies, parities."""

from __future__ import annotations

from dataclasses import dataclass


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
    """L(Θ − Θ_c) − L(Θ) in nats, measured on so many images.

    They are the hardest ones, fewer than the oracle's, where it was clear who wins; the others
    count as unchanged. They are none where it was clear from one of the last few steps, which is
    what ``nats`` is of then. It is inf where the loss is not a number.
    """

    nats: float
    images: int


@dataclass(frozen=True)
class PredictedLatency:
    """What the search took original and slim network to need for one batch, from layer times.

    ``corrections`` is how often these were measured anew, inside the network as it was by then.
    """

    original_ms: float
    slim_ms: float
    corrections: int


@dataclass(frozen=True)
class Parity:
    """How far two executions of the same function are apart, as a share of the output's scale."""

    relative_error: float
    tolerance: float
    images: int


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
