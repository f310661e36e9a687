"""APoZ, the average percentage of zeros: a channel whose ReLU is mostly shut can go."""

from torch import Tensor

from slimnet.saliency.statistics import LayerStatistics


def apoz(layer: LayerStatistics) -> Tensor:
    """1 − APoZ: the share of elements above zero, averaged over images, (channels,).

    Hu et al. 2016, Network Trimming, eq. 1. The gate sits before the activation function, so an
    element is a zero where a ≤ 0, as a ReLU behind it would make it. Only the order of a metric
    is used and low means unimportant, hence 1 − APoZ.
    """
    return (layer.positive / layer.elements).mean(0)
