"""L2 norm of a filter: the minimum-weight criterion, by the length of the filter."""

from torch import Tensor

from slimnet.saliency.statistics import LayerStatistics


def l2_weight(layer: LayerStatistics) -> Tensor:
    """√Σw² for each channel, (channels,). Molchanov et al. 2017, section 2.2 (minimum weight)."""
    return layer.weight.square().sum(1).sqrt()
