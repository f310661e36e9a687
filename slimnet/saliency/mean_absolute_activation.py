"""Mean absolute activation: a channel that stays near zero, on either side, can go."""

from torch import Tensor

from slimnet.saliency.statistics import LayerStatistics


def mean_absolute_activation(layer: LayerStatistics) -> Tensor:
    """(1/|A_c|) Σ|a|, averaged over images, (channels,).

    Molchanov et al. 2017, section 2.2 (activation), before the activation function; every element
    counts, zeros too.
    """
    return (layer.absolute / layer.elements).mean(0)
