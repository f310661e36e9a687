"""Colour images for a network that takes grey ones."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor, nn

from slimnet.load.preprocess import build_preprocessor
from slimnet.settings import Settings


def with_grey_if_taken(settings: Settings, network: nn.Module | None, sample: Tensor) -> Settings:
    """Return the settings, with channels grey where a network takes no colours; none is changed.

    ``sample`` is a raw image (3, height, width). What the network takes is found by trying. Where
    the user says how images are prepared, or what ``channels`` they have, that holds.
    """
    if network is None or len(sample) != 3 or settings.channels != "rgb" or settings.preprocess:
        return settings
    image = build_preprocessor(replace(settings, mean=None, std=None), sample)(sample)
    if not _takes(network, image) and _takes(network, image[:1]):
        return replace(settings, channels="grey")
    return settings


def _takes(network: nn.Module, image: Tensor) -> bool:
    try:
        with torch.no_grad():
            network(image.expand(2, -1, -1, -1))
    except Exception:  # a network's own code may raise anything
        return False
    return True
