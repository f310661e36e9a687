"""Augmentation: mirrored and shifted images, where the original network knows such images."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import torch
from torch import Tensor, nn

from slimnet.records import Batch, Batches

Change = Callable[[Tensor, torch.Generator], Tensor]
LARGEST_SHIFT = 8
LEAST_SHARE = 0.95


def mirror(images: Tensor, generator: torch.Generator) -> Tensor:
    """Return the images (N, C, H, W) with left and right exchanged in half of them, at random."""
    chosen = torch.rand(len(images), generator=generator) < 0.5
    return torch.where(chosen[:, None, None, None], images.flip(3), images)


def shift(images: Tensor, generator: torch.Generator) -> Tensor:
    """Return the images (N, C, H, W), each moved by up to an eighth of its side; edges repeat."""

    def moved(side: int) -> Tensor:
        most = side // LARGEST_SHIFT
        by = torch.randint(-most, most + 1, (len(images), 1), generator=generator)
        return (torch.arange(side) + by).clamp(0, side - 1)

    rows, columns = moved(images.shape[2]), moved(images.shape[3])
    image = torch.arange(len(images))[:, None, None, None]
    channel = torch.arange(images.shape[1])[:, None, None]
    return images[image, channel, rows[:, None, :, None], columns[:, None, None, :]]


CHANGES: dict[str, Change] = {"mirror": mirror, "shift": shift}


def known_changes(original: nn.Module, batches: Batches, seed: int) -> dict[str, Change]:
    """Return the changes after which the original is still right on 95 % as many images, by name.

    The original, in eval mode, is not changed. A digit's mirror image is no digit, and only
    measuring tells. Inputs that are not images (N, C, H, W) have no such changes. ``seed`` is of
    the random changes that are measured.
    """
    inputs, _ = next(iter(batches))
    if inputs.ndim != 4:
        return {}
    generator = torch.Generator().manual_seed(seed)
    least = LEAST_SHARE * _count_right(original, batches)
    known = {}
    for name, change in CHANGES.items():
        changed = ((change(images, generator), labels) for images, labels in batches)
        if _count_right(original, changed) >= least:
            known[name] = change
    return known


@torch.inference_mode()
def _count_right(model: nn.Module, batches: Iterable[Batch]) -> int:
    return sum(int((model(inputs).argmax(1) == labels).sum()) for inputs, labels in batches)
