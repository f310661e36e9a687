"""Mutual information: a channel that says little about the network's answer can go."""

import torch
from torch import Tensor

from slimnet.saliency.statistics import LayerStatistics

BINS = 8


def mutual_information(layer: LayerStatistics) -> Tensor:
    """I(q(ā_c); ŷ) in nats, (channels,): information gain of a quantised activation.

    ā is the mean of a channel's feature map, image by image; q puts it into one of 8 bins of
    equal population; ŷ is the class that the network predicts. Information gain on quantised
    activations, H(q) + H(ŷ) − H(q,ŷ), as in Molchanov et al. 2017, section 2.2, there with the
    label. It is the plug-in estimate: too high where images are few, and the more so the more
    classes there are, but alike for every channel that fills all bins.
    """
    bins = _equal_population_bins(layer.activation / layer.elements)
    classes = torch.unique(layer.prediction, return_inverse=True)[1]
    joint = _joint_share(bins, classes)
    entropies = _entropy(joint.sum(2)) + _entropy(joint.sum(1)) - _entropy(joint.flatten(1))
    return entropies.clamp_min(0)


def _equal_population_bins(values: Tensor) -> Tensor:
    """Return the bin of each value in its column, int64 (images, channels); ties share a bin."""
    columns = values.T.contiguous()
    below = torch.searchsorted(columns.sort(1).values, columns)
    return (below * BINS // columns.shape[1]).clamp_max(BINS - 1).T


def _joint_share(bins: Tensor, classes: Tensor) -> Tensor:
    """Return the share of images in each bin and class, (channels, bins, classes)."""
    channels, many = bins.shape[1], int(classes.max()) + 1
    cell = (torch.arange(channels) * BINS + bins) * many + classes[:, None]
    counts = torch.bincount(cell.flatten(), minlength=channels * BINS * many)
    return counts.reshape(channels, BINS, many).double() / len(classes)


def _entropy(shares: Tensor) -> Tensor:
    """Return −Σ p ln p over the last dimension, in nats; 0 ln 0 is 0."""
    return -torch.xlogy(shares, shares).sum(-1)
