"""The race: candidates that cannot win any more are measured on no further images.

Images come hardest first, and nearly all of a change of the loss happens on those. What a
candidate could still make up on the others is bounded in two ways, and the lower bound counts.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from slimnet.search.cost import price_factor

SAFETY = 16.0  # at 4 one of 34 steps of ResNet-20 lost its winner; at 12 none of 38
LARGEST_LOSS = 20.0
SMALLEST_ODDS = 1e-12


def still_open(
    live: Sequence[int],
    seen: Sequence[Sequence[Tensor]],
    savings: Sequence[float],
    losses: Tensor,
    *,
    likelihoods: bool,
) -> list[int]:
    """Return which candidates may still win after some of the images.

    Args:
        live: the numbers of those that have not lost yet.
        seen: by candidate, the changes of the losses on each batch so far, (images,) each.
        savings: what each candidate saves.
        losses: of all images before any change, (images,) in nats, those seen first. They fall,
            unless no image is left.
        likelihoods: the losses are -log p of the right answer, not just any loss.
    """
    totals = {i: float(torch.cat(list(seen[i])).sum()) for i in live}
    factors = {i: price_factor(totals[i], savings[i]) for i in live}
    prices = {i: totals[i] * factors[i] for i in live if math.isfinite(totals[i])}
    if not prices:
        return []
    leader = min(prices, key=prices.__getitem__)
    passed, last = sum(len(change) for change in seen[leader]), len(seen[leader][-1])
    before, rest = losses[passed - last : passed], losses[passed:]
    changes = torch.stack([seen[i][-1] * factors[i] for i in prices])
    place = list(prices).index(leader)
    bounds = _as_large(changes - changes[place], rest)
    if likelihoods:
        after = torch.stack([_odds(before + seen[i][-1]) * factors[i] for i in prices])
        bounds = torch.minimum(bounds, _as_likely(after - after[place], before, rest))
    return [
        i
        for i, bound in zip(prices, bounds.tolist(), strict=True)
        if i == leader or prices[i] - prices[leader] <= bound
    ]


def _as_large(behind: Tensor, rest: Tensor) -> Tensor:
    """Return the most to be made up where changes are no larger than those last seen.

    Losses fall, so they are mostly smaller. ``behind`` is by candidate and image last seen.
    """
    return len(rest) * behind.abs().mean(1)


def _as_likely(behind: Tensor, before: Tensor, rest: Tensor) -> Tensor:
    """Return the most to be made up where odds change by the same factors as on those last seen.

    A change of the class scores multiplies the odds of a wrong answer, (1 - p) / p, however small
    they are, and the change of the loss is at most that of the odds. ``behind`` is of odds.
    """
    factors = (behind.abs() / _odds(before).clamp_min(SMALLEST_ODDS)).mean(1)
    return SAFETY * factors * _odds(rest).sum()


def _odds(losses: Tensor) -> Tensor:
    """Return the odds of a wrong answer from cross-entropies in nats, -log p."""
    return torch.expm1(losses.clamp(0, LARGEST_LOSS))
