"""Mean of activations: a channel that says little on average can go."""

from torch import Tensor

from slimnet.saliency.statistics import LayerStatistics


def mean_activation(layer: LayerStatistics) -> Tensor:
    """(1/‖A_c‖₀) Σ a, averaged over images, (channels,). Persand et al. 2020, Table I, (2)."""
    return (layer.activation / layer.count.clamp_min(1)).mean(0)
