"""Images and networks laid out for speed, since the search runs over the same ones all the time."""

from __future__ import annotations

import copy
from dataclasses import replace

import torch
from torch import Tensor, nn

from slimnet.records import Split

LARGEST_BATCH = 512
LARGEST_BATCH_ELEMENTS = 2**21
MOST_ELEMENTS = 2**28
SAME = 1e-3


def best_format(model: nn.Module, inputs: Tensor) -> torch.memory_format:
    """Return channels last, which CPUs like, where the network computes the same with it.

    The model is not changed. Some networks insist on the usual layout, by a ``view`` for instance.
    """
    usual, last = torch.contiguous_format, torch.channels_last
    if inputs.ndim != 4:
        return usual
    try:
        with torch.no_grad():
            expected = model(inputs[:2])
            got = copy.deepcopy(model).to(memory_format=last)(
                inputs[:2].contiguous(memory_format=last)
            )
        same = torch.allclose(got, expected, rtol=SAME, atol=SAME * float(expected.abs().max()))
    except Exception:
        # whatever the network's own code raises means the same: not in this layout
        return usual
    return last if same else usual


def lay_out(
    split: Split,
    images: int | None = None,
    memory_format: torch.memory_format = torch.contiguous_format,
) -> Split:
    """Return the split with small images in larger batches, in this memory format.

    With ``images`` only every n-th image is taken, so that at most that many are left. A split
    that would not fit in memory comes back as it is.
    """
    stride = 1 if images is None else max(1, -(-split.images // images))
    first, _ = next(iter(split.batches))
    if split.images // stride * first[0].numel() > MOST_ELEMENTS:
        return split
    kept, passed = [], 0
    for inputs, labels in split.batches:
        start = -passed % stride
        # a copy, so that the images between do not stay in memory
        kept.append((inputs[start::stride].clone(), labels[start::stride].clone()))
        passed += len(labels)
    inputs, labels = (torch.cat(part) for part in zip(*kept, strict=True))
    size = max(len(part) for _, part in split.batches)
    size = max(size, min(LARGEST_BATCH, LARGEST_BATCH_ELEMENTS // inputs[0].numel()))
    if memory_format is torch.channels_last:
        inputs = inputs.contiguous(memory_format=memory_format)
    batches = list(zip(torch.split(inputs, size), torch.split(labels, size), strict=True))
    return replace(split, images=len(labels), batches=batches)
