"""Whether timings can be trusted, in plain words."""

from __future__ import annotations

import numpy as np

from slimnet.measure.latency import FEWEST_SAMPLES
from slimnet.records import Latency

WIDEST_INTERVAL = 0.2  # of the speed-up; of a large network on a quiet machine, a few hundredths
WIDEST_SPREAD = 0.25  # of the median, for the middle half of the samples


def noise_warning(entry: Latency) -> str | None:
    """Return why these timings tell little, and what to do; None where they can be trusted."""
    where = f"{entry.runtime}, batch {entry.batch_size}"
    samples = len(entry.slim_samples_ms)
    if samples < FEWEST_SAMPLES:
        return (
            f"{where}: {samples} timing{'s' if samples > 1 else ''} of each network cannot tell "
            f"noise from speed; take {FEWEST_SAMPLES} or more."
        )
    spread = max(map(_spread, (entry.original_samples_ms, entry.slim_samples_ms)))
    interval = (entry.speedup_high - entry.speedup_low) / entry.speedup
    if interval <= WIDEST_INTERVAL and spread <= WIDEST_SPREAD:
        return None
    return (
        f"{where}: the machine is too noisy to tell. The ratio of the times lies anywhere from "
        f"{entry.speedup_low:.2f} to {entry.speedup_high:.2f}, and the middle half of the timings "
        f"of one network is spread over {100 * spread:.0f} % of its median: close what else runs, "
        f"or take more samples than {samples}. Small networks also differ by where each session "
        "has them in memory."
    )


def _spread(samples_ms: tuple[float, ...]) -> float:
    low, middle, high = np.percentile(samples_ms, (25, 50, 75))
    return float((high - low) / middle)
