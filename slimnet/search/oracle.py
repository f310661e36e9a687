"""The oracle: the change of the loss when channels really go (sensitivity; paper, eq. 6).

A candidate is measured as it would be shipped: with its consumers repaired, unless the repair is
switched off, which is the paper's method.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence

from slimnet.groups import masked, plan_for
from slimnet.measure import mean_loss
from slimnet.records import Batches
from slimnet.recover import repaired_weights, replaced
from slimnet.search.proposals import Proposal
from slimnet.search.state import State


def measure_sensitivities(
    state: State,
    proposals: Sequence[Proposal],
    batches: Batches,
    loss_before: float,
    known: dict[Hashable, float] | None = None,
) -> list[float]:
    """Return L(Θ − Θ_c) − L(Θ), in nats, of each proposal; inf where the loss is not a number.

    The state is as it was when this returns: every trial zeroes Θ_c, repairs the consumers (where
    the state has moments), and takes both back. ``known`` holds what was measured of this state
    already, by the proposals' keys, and is added to.
    """
    known = {} if known is None else known
    for proposal in proposals:
        if proposal.key in known:
            continue
        plan = plan_for(state.groups, proposal.units)
        repaired = repaired_weights(state.model, plan, state.moments)
        with masked(state.model, plan), replaced(state.model, repaired):
            change = mean_loss(state.model, batches) - loss_before
        known[proposal.key] = change if math.isfinite(change) else math.inf
    return [known[proposal.key] for proposal in proposals]
