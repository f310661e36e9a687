"""How well orders of units agree with the oracle's: over all of them, and layer by layer."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import torch
from scipy import stats
from torch import Tensor

from slimnet.records import Agreement, MetricAgreement

LOWEST_SHARE = 0.1
"""Of the units, the share that counts as lowest. A guess: about what one run removes early on."""


@dataclass(frozen=True)
class Reference:
    """The oracle's ``values`` (units,) of all units, without NaN, that orders are compared with.

    ``layers`` maps each layer to the positions of its units, int64.
    """

    values: Tensor
    layers: Mapping[str, Tensor]

    @property
    def k(self) -> int:
        """How many of the lowest units are compared."""
        return max(1, round(LOWEST_SHARE * len(self.values)))


def spearman(first: Tensor, second: Tensor) -> float | None:
    """Return the correlation of the ranks of two (n,) without NaN.

    None where there is no order: fewer than two units, or all of them equal.
    """
    if not _are_orders(first, second):
        return None
    return float(stats.spearmanr(first.numpy(), second.numpy()).statistic)


def kendall(first: Tensor, second: Tensor) -> float | None:
    """Return Kendall's tau-b of two (n,) without NaN; None where there is no order."""
    if not _are_orders(first, second):
        return None
    # the method only says how a p-value is found, which nobody reads
    return float(stats.kendalltau(first.numpy(), second.numpy(), method="asymptotic").statistic)


def _are_orders(*values: Tensor) -> bool:
    return all(len(torch.unique(one)) > 1 for one in values)


def lowest(values: Tensor, k: int) -> Tensor:
    """Return the chance of each of (n,) to be among the k lowest, float64, k in all.

    Where equal values straddle the end of the k, each of them has the same chance.
    """
    last = values.sort().values[k - 1]
    below, equal = (values < last).double(), (values == last).double()
    return below + equal * (k - below.sum()) / equal.sum()


def shared_lowest(first: Tensor, second: Tensor, k: int) -> float:
    """Return the share of the k lowest that two orders (n,) have in common; ties by chance."""
    return float((lowest(first, k) * lowest(second, k)).sum()) / k


def agreement(first: Tensor, second: Tensor) -> Agreement:
    """Return how well two orders (units,) agree; the tensors are not changed."""
    return Agreement(spearman(first, second), kendall(first, second))


def metric_agreement(
    metric: str, scores: Tensor, reference: Reference, seconds: float
) -> MetricAgreement:
    """Return how well the scores (units,) order the units; ``seconds`` is how long they took."""
    layers = {
        name: agreement(scores[own], reference.values[own])
        for name, own in reference.layers.items()
    }
    return MetricAgreement(
        metric=metric,
        overall=agreement(scores, reference.values),
        layers=layers,
        layers_mean=Agreement(
            _mean(one.spearman for one in layers.values()),
            _mean(one.kendall for one in layers.values()),
        ),
        lowest_shared_percent=100 * shared_lowest(scores, reference.values, reference.k),
        seconds=seconds,
    )


def _mean(values: Iterable[float | None]) -> float | None:
    """Return the mean of those that exist."""
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known else None
