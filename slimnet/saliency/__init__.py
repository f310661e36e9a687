"""Saliency: statistics gathered in one pass, the metrics, and the scores of units."""

from slimnet.saliency.metrics import METRICS, require_metrics
from slimnet.saliency.score import score_units
from slimnet.saliency.statistics import LayerStatistics, gather_statistics

__all__ = ["METRICS", "LayerStatistics", "gather_statistics", "require_metrics", "score_units"]
