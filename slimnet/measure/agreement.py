"""How well orders of units agree with the oracle's: over all of them, and layer by layer."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from slimnet.measure.rank_correlation import (
    average_ranks,
    chunks,
    correlations,
    kendall,
    lowest,
    quantiles,
    shared_lowest,
    spearman,
    spearman_interval,
)
from slimnet.records import Agreement, MetricAgreement, RandomAgreement

LOWEST_SHARE = 0.1
RANDOM_ORDERS = 1000


@dataclass(frozen=True)
class Reference:
    """What orders are compared with: the ``values`` (units,) of all units, without NaN.

    ``layers`` maps each layer to the positions of its units, int64.
    """

    values: Tensor
    layers: Mapping[str, Tensor]
    seed: int

    @property
    def k(self) -> int:
        """How many of the lowest units are compared."""
        return max(1, round(LOWEST_SHARE * len(self.values)))

    @property
    def layer(self) -> Tensor:
        """The number of each unit's layer, (units,) int64."""
        numbers = torch.zeros(len(self.values), dtype=torch.int64)
        for number, positions in enumerate(self.layers.values()):
            numbers[positions] = number
        return numbers


def agreement(first: Tensor, second: Tensor) -> Agreement:
    """Return how well two orders (units,) agree; the tensors are not changed."""
    return Agreement(spearman(first, second), kendall(first, second))


def metric_agreement(
    metric: str, scores: Tensor, reference: Reference, seconds: float
) -> MetricAgreement:
    """Return how well the scores (units,) order the units; ``seconds`` is what they took."""
    layers = {
        name: agreement(scores[own], reference.values[own])
        for name, own in reference.layers.items()
    }
    return MetricAgreement(
        metric=metric,
        overall=agreement(scores, reference.values),
        spearman_interval=spearman_interval(
            scores, reference.values, reference.layer, reference.seed
        ),
        layers=layers,
        layers_mean=Agreement(
            _mean(one.spearman for one in layers.values()),
            _mean(one.kendall for one in layers.values()),
        ),
        lowest_shared_percent=100 * shared_lowest(scores, reference.values, reference.k),
        seconds=seconds,
    )


def random_agreement(reference: Reference) -> RandomAgreement:
    """Return how well orders at random agree with the reference."""
    generator = torch.Generator().manual_seed(reference.seed)
    values, k = reference.values, reference.k
    sides = [torch.arange(len(values)), *reference.layers.values()]
    expected = [average_ranks(values[own]) for own in sides]
    overall, by_layer, shared = [], [], []
    for draws in chunks(RANDOM_ORDERS, len(values)):
        drawn = torch.rand(draws, len(values), generator=generator, dtype=torch.float64)
        found = [
            correlations(drawn[:, own].argsort(1).argsort(1).double(), ranks.expand(draws, -1))
            for own, ranks in zip(sides, expected, strict=True)
        ]
        overall.append(found[0])
        by_layer.append(torch.stack(found[1:]).nanmean(0))
        shared.append(lowest(values, k)[drawn.argsort(1)[:, :k]].sum(1) / k)
    percent = 100 * torch.cat(shared)
    return RandomAgreement(
        orders=RANDOM_ORDERS,
        spearman=_finite(float(torch.cat(overall).mean())),
        spearman_interval=_interval(torch.cat(overall)),
        layers_spearman_interval=_interval(torch.cat(by_layer)),
        lowest_shared_percent=float(percent.mean()),
        lowest_shared_percent_interval=quantiles(percent),
    )


def _interval(values: Tensor) -> tuple[float, float] | None:
    return quantiles(values) if bool(values.isfinite().all()) else None


def _finite(value: float) -> float | None:
    return None if value != value else value


def _mean(values: Iterable[float | None]) -> float | None:
    """Return the mean of those that exist."""
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known else None
