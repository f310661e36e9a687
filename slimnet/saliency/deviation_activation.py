"""Standard deviation of activations: a channel that hardly varies is a constant, a mere bias."""

from torch import Tensor

from slimnet.saliency.statistics import LayerStatistics


def deviation_activation(layer: LayerStatistics) -> Tensor:
    """√(E[a²] − E[a]²) over images and positions together, (channels,).

    Molchanov et al. 2017, section 2.2 (activation).
    """
    elements = layer.elements.sum(0)
    mean = layer.activation.sum(0) / elements
    # rounding may leave a constant channel a little below zero
    return (layer.square.sum(0) / elements - mean.square()).clamp_min(0).sqrt()
