"""L1 norm of a filter: the sum of its absolute weights says how much it can matter."""

from torch import Tensor

from slimnet.saliency.statistics import LayerStatistics


def l1_weight(layer: LayerStatistics) -> Tensor:
    """Σ|w| for each channel, (channels,). Li et al. 2017, Pruning Filters, section 3.1."""
    return layer.weight.abs().sum(1)
