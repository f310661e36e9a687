"""Scores of units: a coupled group's saliency is the sum over its members."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from slimnet.groups import Group
from slimnet.saliency.metrics import METRICS
from slimnet.saliency.statistics import LayerStatistics


def score_units(
    groups: Sequence[Group], statistics: Mapping[str, LayerStatistics], metrics: Sequence[str]
) -> dict[str, Tensor]:
    """Return, for each metric, the saliency of all units of all groups, (units,), group by group.

    Scores that are not numbers become inf: such a channel is proposed last.
    """
    scores = {}
    for metric in metrics:
        parts = [_score_group(group, statistics, metric) for group in groups]
        scores[metric] = torch.cat(parts).nan_to_num(nan=torch.inf) if parts else torch.empty(0)
    return scores


def _score_group(group: Group, statistics: Mapping[str, LayerStatistics], metric: str) -> Tensor:
    total = torch.zeros(group.units, dtype=torch.float64)
    for gate in group.gates:
        member = group.producer(gate.layer)
        channels = METRICS[metric](statistics[gate.layer])
        total.index_add_(0, member.unit, channels[member.index])
    return total
