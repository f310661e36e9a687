"""Accuracy and loss, size, and latency."""

from slimnet.measure.latency import measure_latency
from slimnet.measure.paying_widths import measure_paying_widths, next_lower_width
from slimnet.measure.profile import profile_layers
from slimnet.measure.quality import (
    Quality,
    mean_loss,
    measure_quality,
    paired_drop,
    require_better_than_chance,
    require_finite_loss,
)
from slimnet.measure.runtime import require_runtime
from slimnet.measure.size import count_conv_weights, count_parameters, measure_size

__all__ = [
    "Quality",
    "count_conv_weights",
    "count_parameters",
    "mean_loss",
    "measure_latency",
    "measure_paying_widths",
    "measure_quality",
    "measure_size",
    "next_lower_width",
    "paired_drop",
    "profile_layers",
    "require_better_than_chance",
    "require_finite_loss",
    "require_runtime",
]
