"""METRICS: every saliency metric by its name. A new metric is a new file and one line here."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from torch import Tensor

from slimnet.errors import InputError
from slimnet.saliency.mean_activation import mean_activation
from slimnet.saliency.mean_gradient import mean_gradient
from slimnet.saliency.mean_square_weight import mean_square_weight
from slimnet.saliency.statistics import LayerStatistics
from slimnet.saliency.taylor_first_order import taylor_first_order
from slimnet.saliency.taylor_second_order import taylor_second_order
from slimnet.settings import nearest

Metric = Callable[[LayerStatistics], Tensor]

METRICS: Mapping[str, Metric] = {
    "mean_square_weight": mean_square_weight,
    "mean_activation": mean_activation,
    "mean_gradient": mean_gradient,
    "taylor_first_order": taylor_first_order,
    "taylor_second_order": taylor_second_order,
}


def require_metrics(names: tuple[str, ...]) -> None:
    """Check the names of metrics.

    Raises:
        InputError: a name is not in METRICS; the message gives the nearest one.
    """
    for name in names:
        if name not in METRICS:
            raise InputError(f"unknown saliency metric {name!r}{nearest(name, list(METRICS))}")
