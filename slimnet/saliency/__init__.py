"""Saliency: statistics gathered in one pass, the metrics, and the scores of units."""

from slimnet.saliency.gathering import BatchSums, Gathering
from slimnet.saliency.metrics import (
    GROUP_METRICS,
    METRICS,
    TRANSITIVE,
    default_metrics,
    needs_removal_errors,
    read_by,
    require_metrics,
)
from slimnet.saliency.removal_errors import RemovalErrors
from slimnet.saliency.saved_parameters import saved_parameters
from slimnet.saliency.score import score_units
from slimnet.saliency.statistics import LayerStatistics, gather_statistics, join_batches
from slimnet.saliency.sums import EVERY_SUM, OF_GRADIENTS

__all__ = [
    "EVERY_SUM",
    "GROUP_METRICS",
    "METRICS",
    "OF_GRADIENTS",
    "TRANSITIVE",
    "BatchSums",
    "Gathering",
    "LayerStatistics",
    "RemovalErrors",
    "default_metrics",
    "gather_statistics",
    "join_batches",
    "needs_removal_errors",
    "read_by",
    "require_metrics",
    "saved_parameters",
    "score_units",
]
