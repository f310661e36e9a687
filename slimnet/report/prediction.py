"""Whether the search knew what it was saving: predicted against measured latency."""

from __future__ import annotations

from collections.abc import Sequence

from slimnet.records import Latency, PredictedLatency, PredictionCheck
from slimnet.report.numbers import MINUS

WORTH_A_NOTE_PERCENT = 20


def check_prediction(
    predicted: PredictedLatency | None, latency: Sequence[Latency], runtime: str, batch_size: int
) -> PredictionCheck | None:
    """Return prediction and measurement at its runtime and batch size; None if one is missing."""
    found = [e for e in latency if (e.runtime, e.batch_size) == (runtime, batch_size)]
    if predicted is None or not found:
        return None
    speedup = predicted.original_ms / predicted.slim_ms
    return PredictionCheck(
        runtime=runtime,
        batch_size=batch_size,
        predicted_original_ms=predicted.original_ms,
        predicted_slim_ms=predicted.slim_ms,
        measured_original_ms=found[0].original_median_ms,
        measured_slim_ms=found[0].slim_median_ms,
        predicted_speedup=speedup,
        measured_speedup=found[0].speedup,
        off_percent=100 * (found[0].speedup / speedup - 1),
        corrections=predicted.corrections,
    )


def prediction_line(check: PredictionCheck) -> str:
    """Return one sentence with both speed-ups."""
    sign = MINUS if round(check.off_percent) < 0 else "+"
    return (
        f"The search predicted {check.predicted_speedup:.2f} times as fast on {check.runtime}, "
        f"batch {check.batch_size}; measured: {check.measured_speedup:.2f} times "
        f"({sign}{abs(check.off_percent):.0f} %)."
    )


def prediction_notes(check: PredictionCheck | None) -> tuple[str, ...]:
    """Return a warning where prediction and measurement are further apart than 20 %."""
    if check is None or abs(check.off_percent) <= WORTH_A_NOTE_PERCENT:
        return ()
    times = {0: "never corrected", 1: "corrected once"}
    corrected = times.get(check.corrections, f"corrected {check.corrections} times")
    return (
        f"the prediction of the speed-up is more than {WORTH_A_NOTE_PERCENT:g} % off: what single "
        "layers were taken to save is not what the whole network saved; the table of layer times "
        f"was {corrected} from a profile of the whole network",
    )
