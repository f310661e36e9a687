"""Scores of units: a coupled group's saliency is the sum over its members."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from slimnet.errors import InputError
from slimnet.execution import weight_slices
from slimnet.groups import Group
from slimnet.saliency.metrics import (
    GROUP_METRICS,
    METRICS,
    TRANSITIVE,
    RemovalErrors,
    base_name,
    needs_removal_errors,
)
from slimnet.saliency.statistics import LayerStatistics


def saved_parameters(group: Group, model: nn.Module) -> Tensor:
    """Return how many parameters go with each unit of the group alone, (units,) float64.

    They are the producers' filters and biases, the norms' weights and biases, and the input
    weights of all consumers, in the shapes that the model has now; it is not changed. Persand et
    al. 2021, Taxonomy of Saliency Metrics for Channel Pruning (weights transitively removed).
    """
    shapes: dict[int, torch.Size] = {}
    # parameter -> dimension -> (unit, position) pairs (entries, 2)
    going: dict[int, dict[int, list[Tensor]]] = defaultdict(lambda: defaultdict(list))
    for member in group.members:
        module = model.get_submodule(member.module)
        for parameter, dimension, _ in weight_slices(module, member.direction, member.index):
            shapes[id(parameter)] = parameter.shape
            # the second dimension of a grouped convolution counts within one group
            position = member.index % parameter.shape[dimension]
            going[id(parameter)][dimension].append(torch.stack([member.unit, position], 1))
    saved = torch.zeros(group.units, dtype=torch.float64)
    for key, dimensions in going.items():
        kept = torch.ones(group.units, dtype=torch.float64)
        for dimension, pairs in dimensions.items():
            unit = torch.unique(torch.cat(pairs), dim=0)[:, 0]
            kept *= 1 - torch.bincount(unit, minlength=group.units) / shapes[key][dimension]
        saved += shapes[key].numel() * (1 - kept)
    return saved.round()


def score_units(
    groups: Sequence[Group],
    statistics: Mapping[str, LayerStatistics],
    metrics: Sequence[str],
    *,
    model: nn.Module | None = None,
    removal_errors: RemovalErrors | None = None,
) -> dict[str, Tensor]:
    """Return, for each metric, the saliency of all units of all groups, (units,), group by group.

    Scores that are not numbers become inf: such a unit is proposed last.

    Args:
        groups: the groups as they stand.
        statistics: by layer, as ``gather_statistics`` returns them.
        metrics: names, each with or without the prefix ``transitive_``.
        model: the network of the groups, for ``transitive_`` metrics; it is not changed.
        removal_errors: of the consumers, for the metrics in GROUP_METRICS.

    Raises:
        InputError: a metric needs the model or the removal errors, and they are missing.
    """
    if needs_removal_errors(metrics) and not (removal_errors and removal_errors.groups):
        raise InputError(
            f"the saliency metric {' or '.join(GROUP_METRICS)} needs layers that can be "
            "repaired; the repair is off or there are none; leave the metric out"
        )
    saved = _saved(groups, model, metrics)
    scores = {}
    for metric in metrics:
        name = base_name(metric)
        parts = [_score_group(group, statistics, name, removal_errors) for group in groups]
        if metric.startswith(TRANSITIVE):
            parts = [part / parameters for part, parameters in zip(parts, saved, strict=True)]
        total = torch.cat(parts) if parts else torch.empty(0)
        scores[metric] = total.nan_to_num(nan=torch.inf, posinf=torch.inf)
    return scores


def _score_group(
    group: Group,
    statistics: Mapping[str, LayerStatistics],
    metric: str,
    removal_errors: RemovalErrors | None,
) -> Tensor:
    if metric in GROUP_METRICS:
        assert removal_errors is not None
        return GROUP_METRICS[metric](group, removal_errors)
    total = torch.zeros(group.units, dtype=torch.float64)
    for gate in group.gates:
        member = group.producer(gate.layer)
        channels = METRICS[metric](statistics[gate.layer])
        total.index_add_(0, member.unit, channels[member.index])
    return total


def _saved(
    groups: Sequence[Group], model: nn.Module | None, metrics: Sequence[str]
) -> list[Tensor]:
    """Return the parameters that each unit of each group saves, where a metric needs them."""
    transitive = [metric for metric in metrics if metric.startswith(TRANSITIVE)]
    if not transitive:
        return []
    if model is None:
        raise InputError(f"the saliency metric {transitive[0]} counts parameters; give the model")
    return [saved_parameters(group, model) for group in groups]
