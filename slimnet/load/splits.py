"""Divide labelled images at random, with every class in proportion, the same way every time."""

from __future__ import annotations

from collections import Counter

import torch
from torch import Tensor


def stratified_split(labels: Tensor, count: int, seed: int) -> tuple[Tensor, Tensor]:
    """Return the indices of ``count`` images and of all others, both sorted, with no overlap.

    ``labels`` is (images,) int64. Every class gives its share of ``count``, rounded by largest
    remainder, ties to the lower class. The same on every platform for the same seed.
    """
    generator = torch.Generator().manual_seed(seed)
    chosen = []
    sizes = Counter(labels.tolist())
    classes = sorted(sizes)
    shares = _shares([sizes[label] for label in classes], count)
    for label, share in zip(classes, shares, strict=True):
        members = (labels == label).nonzero().flatten()
        order = torch.randperm(len(members), generator=generator)
        chosen.append(members[order[:share]])
    taken = torch.zeros(len(labels), dtype=torch.bool)
    taken[torch.cat(chosen)] = True
    return taken.nonzero().flatten(), (~taken).nonzero().flatten()


def _shares(sizes: list[int], count: int) -> list[int]:
    """Return how many of each class make ``count`` together; in whole numbers, so exactly."""
    total = sum(sizes)
    shares = [size * count // total for size in sizes]
    remainders = [size * count % total for size in sizes]
    by_remainder = sorted(range(len(sizes)), key=lambda index: (-remainders[index], index))
    for index in by_remainder[: count - sum(shares)]:
        shares[index] += 1
    return shares
