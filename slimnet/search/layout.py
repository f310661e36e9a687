"""Images laid out for speed, since the search runs over the same ones again and again."""

from __future__ import annotations

from dataclasses import replace

import torch

from slimnet.records import Split

LARGEST_BATCH = 512
LARGEST_BATCH_ELEMENTS = 2**21
MOST_ELEMENTS = 2**28


def lay_out(split: Split, images: int | None = None) -> Split:
    """Return the split with small images in larger batches, channels last as CPUs like it.

    With ``images`` only every n-th image is taken, so that at most about that many are left. A
    split that would not fit in memory comes back as it is.
    """
    stride = 1 if images is None else max(1, -(-split.images // images))
    first, _ = next(iter(split.batches))
    if split.images // stride * first[0].numel() > MOST_ELEMENTS:
        return split
    kept = [(inputs[::stride], labels[::stride]) for inputs, labels in split.batches]
    inputs, labels = (torch.cat(part) for part in zip(*kept, strict=True))
    size = max(len(first) for _, first in split.batches)
    size = max(size, min(LARGEST_BATCH, LARGEST_BATCH_ELEMENTS // inputs[0].numel()))
    if inputs.ndim == 4:
        inputs = inputs.contiguous(memory_format=torch.channels_last)
    batches = list(zip(torch.split(inputs, size), torch.split(labels, size), strict=True))
    return replace(split, images=len(labels), batches=batches)
