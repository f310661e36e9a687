"""The race: candidates that cannot win any more are measured on no further images.

Images come hardest first, and nearly all of a change of the loss happens on those. A candidate is
out when the lowest price that it can still reach is above one that another will hardly exceed.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from slimnet.search.cost import price, price_factor

SAFETY = 8.0
"""Of 240 steps of ResNet-20, on six draws of images, 6 lost their winner at 6, and 5 at 8: to
images that the network was sure of and that a single channel turned; 3 of those also at 32."""

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
            unless no image is left, but for some that rose when others were seen already.
        likelihoods: the losses are -log p of the right answer, not just any loss.
    """
    changes = {i: torch.cat(list(seen[i])) for i in live}
    totals = {i: float(change.sum()) for i, change in changes.items()}
    numbers = [i for i in live if math.isfinite(totals[i])]
    if not numbers:
        return []
    factors = torch.tensor([price_factor(totals[i], savings[i]) for i in numbers]).double()
    prices = torch.tensor([totals[i] for i in numbers]).double() * factors
    leader = int(prices.argmin())
    passed = sum(len(change) for change in seen[numbers[leader]])
    before, rest = losses[:passed].double(), losses[passed:].double()
    last = torch.stack([seen[i][-1] for i in numbers]) * factors[:, None]
    # losses fall, so that later changes are mostly smaller than those last seen
    like_last = _counted_as(before[-last.shape[1] :], rest) if likelihoods else len(rest)
    turned = like_last * (last - last[leader]).abs().mean(1)
    possible = prices - prices[leader] <= turned
    if likelihoods:
        # no loss falls below zero; a total that changes its sign has another factor
        gain = float(rest.clamp_min(0).sum())
        sizes = [len(batch) for batch in seen[numbers[leader]]]
        rises = _likely_rises(torch.stack([changes[i] for i in numbers]), sizes, before, rest)
        highest = min(
            price(totals[i] + rise, savings[i])
            for i, rise in zip(numbers, rises.tolist(), strict=True)
        )
        lowest = [price(totals[i] - gain, savings[i]) for i in numbers]
        possible &= torch.tensor([low <= highest for low in lowest])
    possible[leader] = True
    return [i for i, may_win in zip(numbers, possible.tolist(), strict=True) if may_win]


def _counted_as(last: Tensor, rest: Tensor) -> float:
    """Return as how many images of the losses last seen the rest counts: each as one or more.

    It is as many more as its odds are higher, where its loss has risen meanwhile. All are in nats.
    """
    odds = _odds(last).mean().clamp_min(SMALLEST_ODDS)
    return float((_odds(rest) / odds).clamp_min(1).sum())


def _likely_rises(changes: Tensor, sizes: list[int], before: Tensor, rest: Tensor) -> Tensor:
    """Return how far each candidate may raise the losses of the images left, in all, in nats.

    A change of the class scores multiplies the odds of a wrong answer, (1 - p) / p, however small
    they are, and the change of the loss is at most that of the odds. The factors are those of the
    batch where they were largest: one image may lose much among many that lose nothing.
    ``changes`` (candidates, images) came in batches of these ``sizes``.
    """
    growth = (_odds(before + changes) / _odds(before).clamp_min(SMALLEST_ODDS) - 1).abs()
    batches = torch.split(growth, sizes, dim=1)
    largest = torch.stack([batch.mean(1) for batch in batches]).amax(0)
    return SAFETY * largest * _odds(rest).sum()


def _odds(losses: Tensor) -> Tensor:
    """Return the odds of a wrong answer from cross-entropies in nats, -log p."""
    return torch.expm1(losses.clamp(0, LARGEST_LOSS))
