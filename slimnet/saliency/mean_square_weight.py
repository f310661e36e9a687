"""Mean squares of weights: a filter of small weights makes a small feature map."""

from torch import Tensor

from slimnet.saliency.statistics import LayerStatistics


def mean_square_weight(layer: LayerStatistics) -> Tensor:
    """(1/‖W_c‖₀) Σ w² for each channel, (channels,). Persand et al. 2020, Table I, (1)."""
    return layer.weight.square().sum(1) / layer.weight.count_nonzero(1).clamp_min(1)
