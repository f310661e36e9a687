"""Average of gradients: where the loss does not react to a feature map, it can go."""

from torch import Tensor

from slimnet.saliency.statistics import LayerStatistics


def mean_gradient(layer: LayerStatistics) -> Tensor:
    """(1/‖A_c‖₀) |Σ dL/da|, mean over images, (channels,). Persand et al. 2020, Table I, (3)."""
    return (layer.gradient.abs() / layer.count.clamp_min(1)).mean(0)
