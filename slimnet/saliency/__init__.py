"""Saliency: statistics gathered in one pass, the metrics, and the scores of units."""

from slimnet.saliency.agreement import Reference, agreement, metric_agreement
from slimnet.saliency.metrics import (
    GROUP_METRICS,
    METRICS,
    default_metrics,
    lacks_classes,
    needs_removal_errors,
    read_by,
    require_metrics,
    saved_parameters,
    score_units,
)
from slimnet.saliency.statistics import gather_statistics
