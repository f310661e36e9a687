"""First-order Taylor expansion of the loss around the channel's own activations."""

from torch import Tensor

from slimnet.saliency.statistics import LayerStatistics


def taylor_first_order(layer: LayerStatistics) -> Tensor:
    """(1/‖A‖₀) |Σ a·dL/da|, mean over images, (channels,). Persand et al. 2020, Table I, (4)."""
    return (layer.product.abs() / layer.count.clamp_min(1)).mean(0)
