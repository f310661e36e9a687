"""Reconstruction error: what the repair cannot make up for when a unit goes."""

import torch
from torch import Tensor

from slimnet.groups import Group
from slimnet.saliency.removal_errors import RemovalErrors


def reconstruction_error(group: Group, errors: RemovalErrors) -> Tensor:
    """Σ over consumers of tr(W_c (H⁻¹_cc)⁻¹ W_cᵀ), (units,) float64.

    The optimal brain surgeon's saliency (Hassibi and Stork 1993) for a block of columns c, summed
    over the rows of W. A consumer whose error is not known (it cannot be repaired) makes the
    group's scores inf: its units are proposed last.
    """
    total = torch.zeros(group.units, dtype=torch.float64)
    known = errors.alone.get(group.name, {})
    for consumer in group.consumers:
        total += known.get(consumer, torch.inf)
    return total
