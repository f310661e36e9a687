"""How well two orders of the same units agree. Ties are handled; nothing here needs SciPy."""

from __future__ import annotations

import math

import torch
from torch import Tensor

RESAMPLES = 1000
MOST_ELEMENTS = 2**22
SMALLEST_VARIANCE = 1e-6


def average_ranks(values: Tensor) -> Tensor:
    """Return the ranks from 1 on, (n,) float64; equal values share the mean of their ranks."""
    _, place, many = torch.unique(values, return_inverse=True, return_counts=True)
    middle = many.cumsum(0) - (many - 1) / 2
    ranks: Tensor = middle.double()[place]
    return ranks


def spearman(first: Tensor, second: Tensor) -> float | None:
    """Return the correlation of the ranks of two (n,) without NaN.

    None where there is no order: fewer than two units, or all of them equal.
    """
    found = correlations(average_ranks(first)[None], average_ranks(second)[None])
    return float(found) if found.isfinite() else None


def correlations(first: Tensor, second: Tensor, weight: Tensor | None = None) -> Tensor:
    """Return the correlation of each row of ranks with the other's, both (rows, n) float64.

    A row's ranks may count ``weight`` (rows, n) times. NaN where all ranks of a side are one.
    """
    weight = torch.ones_like(first) if weight is None else weight
    share = weight / weight.sum(1, keepdim=True)
    first, second = (x - (share * x).sum(1, keepdim=True) for x in (first, second))
    spreads = torch.stack([(share * x**2).sum(1) for x in (first, second)])
    # ranks that are not all one have a variance of 1/4 or more; less is rounding
    spread = spreads.where(spreads > SMALLEST_VARIANCE, torch.nan).prod(0).sqrt()
    return (share * first * second).sum(1) / spread


def kendall(first: Tensor, second: Tensor) -> float | None:
    """Return Kendall's tau-b of two (n,) without NaN; None where there is no order.

    In O(n log² n): units are sorted by the first value, and then the pairs that the second value
    has the other way round are counted (Knight 1966).
    """
    ranks = torch.stack([average_ranks(first), average_ranks(second)], 1)
    both, joint = torch.unique(ranks, dim=0, return_counts=True)  # sorted by first, then second
    pairs, tied = _pairs(torch.tensor([len(ranks)])), _pairs(joint)
    tied_first, tied_second = (
        _pairs(torch.unique(side, return_counts=True)[1]) for side in ranks.unbind(1)
    )
    spread = math.sqrt(pairs - tied_first) * math.sqrt(pairs - tied_second)
    if spread == 0:
        return None
    discordant = _inversions(torch.repeat_interleave(both[:, 1], joint))
    agreeing = pairs - tied_first - tied_second + tied - 2 * discordant
    return agreeing / spread


def _pairs(counts: Tensor) -> int:
    """Return how many pairs there are within sets of these sizes."""
    return int((counts * (counts - 1) // 2).sum())


def _inversions(values: Tensor) -> int:
    """Return how many pairs of (n,) stand in falling order, by a merge sort from below."""
    size = 1 << (len(values) - 1).bit_length()
    rows = torch.full((size, 1), torch.inf, dtype=torch.float64)
    rows[: len(values), 0] = values
    found = 0
    while len(rows) > 1:
        left, right = rows[0::2].contiguous(), rows[1::2].contiguous()
        found += int((left.shape[1] - torch.searchsorted(left, right, right=True)).sum())
        rows = torch.cat([left, right], 1).sort(1).values
    return found


def lowest(values: Tensor, k: int) -> Tensor:
    """Return how surely each of (n,) is among the k lowest, 0 to 1 float64, k in all.

    Where equal values straddle the end of the k, each of them has the same chance.
    """
    last = values.sort().values[k - 1]
    below, equal = (values < last).double(), (values == last).double()
    return below + equal * (k - below.sum()) / equal.sum()


def shared_lowest(first: Tensor, second: Tensor, k: int) -> float:
    """Return the share of the k lowest that two orders (n,) have in common; ties by chance."""
    return float((lowest(first, k) * lowest(second, k)).sum()) / k


def spearman_interval(
    first: Tensor, second: Tensor, layer: Tensor, seed: int
) -> tuple[float, float] | None:
    """Return the 95 % interval of Spearman's correlation by the percentile bootstrap.

    Units are drawn anew, with replacement, within each layer. The interval holds what other units
    of these layers could have given, and not the noise of the images. None where there is none.

    Args:
        first: values (n,) without NaN.
        second: the same.
        layer: the number of the layer of each unit, (n,) int64.
        seed: of the drawing; the same one draws the same units.
    """
    generator = torch.Generator().manual_seed(seed)
    found = []
    for draws in chunks(RESAMPLES, len(first)):
        counts = _resampled(layer, draws, generator)
        one, other = (_resampled_ranks(side, counts) for side in (first, second))
        found.append(correlations(one, other, counts))
    drawn = torch.cat(found)
    drawn = drawn[drawn.isfinite()]
    return quantiles(drawn) if len(drawn) > RESAMPLES // 2 else None


def chunks(draws: int, units: int) -> list[int]:
    """Return how many draws to work on at once, chunk by chunk, so that memory is bounded."""
    most = max(1, MOST_ELEMENTS // max(1, units))
    return [min(most, draws - begun) for begun in range(0, draws, most)]


def quantiles(values: Tensor) -> tuple[float, float]:
    """Return between which numbers the middle 95 % of (n,) float64 lie."""
    low, high = torch.quantile(values, torch.tensor([0.025, 0.975], dtype=torch.float64)).tolist()
    return low, high


def _resampled(layer: Tensor, draws: int, generator: torch.Generator) -> Tensor:
    """Return how often each unit is drawn, (draws, n) float64, layer by layer."""
    counts = torch.zeros(draws, len(layer), dtype=torch.float64)
    for number in torch.unique(layer):
        own = torch.nonzero(layer == number).flatten()
        drawn = own[torch.randint(len(own), (draws, len(own)), generator=generator)]
        counts.scatter_add_(1, drawn, torch.ones_like(drawn, dtype=torch.float64))
    return counts


def _resampled_ranks(values: Tensor, counts: Tensor) -> Tensor:
    """Return the average rank of each unit among those drawn, (draws, n) float64."""
    different, place = torch.unique(values, return_inverse=True)
    many = torch.zeros(len(counts), len(different), dtype=torch.float64)
    many.index_add_(1, place, counts)
    return (many.cumsum(1) - (many - 1) / 2)[:, place]
