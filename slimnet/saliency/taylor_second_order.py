"""Second-order Taylor expansion with the Fisher information in place of the Hessian."""

from torch import Tensor

from slimnet.saliency.statistics import LayerStatistics


def taylor_second_order(layer: LayerStatistics) -> Tensor:
    """½ (Σ a·dL/da)², averaged over images, (channels,). Persand et al. 2020, Table I, (5)."""
    return layer.product.square().mean(0) / 2
