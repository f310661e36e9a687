"""The oracle: the change of the loss when channels really go (sensitivity; paper, eq. 6).

A candidate is measured as it would be shipped: with its consumers repaired, unless the repair is
switched off, which is the paper's method.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from torch import nn

from slimnet.groups import Group, masked, plan_for
from slimnet.measure import mean_loss
from slimnet.records import Batches
from slimnet.recover import Moments, repaired_weights, replaced
from slimnet.search.proposals import Proposal


def measure_sensitivities(
    model: nn.Module,
    groups: Sequence[Group],
    proposals: Sequence[Proposal],
    batches: Batches,
    loss_before: float,
    moments: Mapping[str, Moments],
) -> list[float]:
    """Return L(Θ − Θ_c) − L(Θ), in nats, of each proposal; inf where the loss is not a number.

    The model is as it was when this returns: every trial zeroes Θ_c, repairs the consumers that
    have ``moments``, and takes both back.
    """
    sensitivities = []
    for proposal in proposals:
        plan = plan_for(groups, proposal.units)
        repaired = repaired_weights(model, plan, moments)
        with masked(model, plan), replaced(model, repaired):
            change = mean_loss(model, batches) - loss_before
        sensitivities.append(change if math.isfinite(change) else math.inf)
    return sensitivities
