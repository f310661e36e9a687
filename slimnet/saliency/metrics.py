"""The registries: every saliency metric by its name. A new metric is a new file and one line here.

METRICS score the channels of one layer from its statistics; a group's score is the sum over its
members. GROUP_METRICS score the units of a whole group from the errors that their removal leaves.
The prefix ``transitive_`` goes before any name: the score of a unit for each parameter it saves.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
from torch import Tensor

from slimnet.errors import InputError
from slimnet.groups import Group
from slimnet.saliency.apoz import apoz
from slimnet.saliency.deviation_activation import deviation_activation
from slimnet.saliency.joint_reconstruction_error import joint_reconstruction_error
from slimnet.saliency.l1_weight import l1_weight
from slimnet.saliency.l2_weight import l2_weight
from slimnet.saliency.mean_absolute_activation import mean_absolute_activation
from slimnet.saliency.mean_activation import mean_activation
from slimnet.saliency.mean_gradient import mean_gradient
from slimnet.saliency.mean_square_weight import mean_square_weight
from slimnet.saliency.mutual_information import mutual_information
from slimnet.saliency.reconstruction_error import reconstruction_error
from slimnet.saliency.removal_errors import RemovalErrors
from slimnet.saliency.statistics import LayerStatistics
from slimnet.saliency.taylor_first_order import taylor_first_order
from slimnet.saliency.taylor_second_order import taylor_second_order
from slimnet.settings import PAPER_METRICS, nearest

Metric = Callable[[LayerStatistics], Tensor]
GroupMetric = Callable[[Group, RemovalErrors], Tensor]

METRICS: Mapping[str, Metric] = {
    "mean_square_weight": mean_square_weight,
    "mean_activation": mean_activation,
    "mean_gradient": mean_gradient,
    "taylor_first_order": taylor_first_order,
    "taylor_second_order": taylor_second_order,
    "l1_weight": l1_weight,
    "l2_weight": l2_weight,
    "mean_absolute_activation": mean_absolute_activation,
    "deviation_activation": deviation_activation,
    "apoz": apoz,
    "mutual_information": mutual_information,
}

GROUP_METRICS: Mapping[str, GroupMetric] = {
    "reconstruction_error": reconstruction_error,
    "joint_reconstruction_error": joint_reconstruction_error,
}

TRANSITIVE = "transitive_"

REPAIR_METRICS = (
    "joint_reconstruction_error",
    "reconstruction_error",
    "transitive_reconstruction_error",
    "transitive_taylor_first_order",
    "transitive_taylor_second_order",
)


def default_metrics(*, repaired: bool) -> tuple[str, ...]:
    """Return the metrics that propose where the user names none: more where trials are repaired.

    The paper's five say little of what a layer can make up for.
    """
    return (*PAPER_METRICS, *REPAIR_METRICS) if repaired else PAPER_METRICS


def base_name(metric: str) -> str:
    """Return the name without the prefix ``transitive_``."""
    return metric.removeprefix(TRANSITIVE)


def needs_removal_errors(metrics: Iterable[str]) -> bool:
    """Tell whether any of the metrics scores groups from removal errors."""
    return any(base_name(metric) in GROUP_METRICS for metric in metrics)


def read_by(metrics: Iterable[str]) -> set[str]:
    """Return which fields of the statistics these metrics read, so that only those are gathered."""
    asked: set[str] = set()

    class Asked(LayerStatistics):
        def __getattribute__(self, name: str) -> Any:
            asked.add(name)
            return super().__getattribute__(name)

    fields = {field.name: torch.ones(2, 2) for field in dataclasses.fields(LayerStatistics)}
    fields["prediction"] = torch.tensor([0, 1])
    for metric in {base_name(metric) for metric in metrics} & set(METRICS):
        METRICS[metric](Asked(**fields))
    return asked & set(fields)


def require_metrics(names: tuple[str, ...]) -> None:
    """Check the names of metrics.

    Raises:
        InputError: a name is not in a registry; the message gives the nearest one.
    """
    for name in names:
        if base_name(name) not in {**METRICS, **GROUP_METRICS}:
            prefix = name[: len(name) - len(base_name(name))]
            known = [prefix + metric for metric in (*METRICS, *GROUP_METRICS)]
            raise InputError(f"unknown saliency metric {name!r}{nearest(name, known)}")
