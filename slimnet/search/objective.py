"""What the search is after: how its steps are made and what each of them saves."""

from __future__ import annotations

from collections.abc import Sequence

from torch import nn

from slimnet.groups import Group, plan_for
from slimnet.measure import measure_paying_widths, require_runtime
from slimnet.records import Batches
from slimnet.search.cost import Cost, macs_cost, saved_by, weights_cost, widths_of
from slimnet.search.latency import LatencyTable, LayerTimer
from slimnet.search.proposals import Proposal
from slimnet.search.proposer import BlockProposer, Proposer, SetProposer
from slimnet.search.state import State
from slimnet.settings import RUNTIMES, Settings

LEAST_SAVING = 1e-12


class Objective:
    """How steps are proposed, and what a step saves: None counts every unit as one."""

    def __init__(
        self, proposer: Proposer, cost: Cost | None, table: LatencyTable | None = None
    ) -> None:
        self.proposer = proposer
        self._cost = cost
        self._table = table

    def cheapest(
        self, state: State, proposals: Sequence[Proposal], sensitivities: Sequence[float]
    ) -> int:
        """Return which proposal costs the least loss for what it saves."""
        widths = widths_of(state.model)
        prices = []
        for proposal, sensitivity in zip(proposals, sensitivities, strict=True):
            saved = float(sum(len(units) for units in proposal.units))
            if self._cost is not None:
                plan = plan_for(state.groups, proposal.units)
                saved = max(saved_by(plan, state.model, widths, self._cost), LEAST_SAVING)
            # a gain is worth more the more it saves as well
            prices.append(sensitivity / saved if sensitivity > 0 else sensitivity * saved)
        # dearest first, so that each group is remembered by its cheapest proposal
        for number in sorted(range(len(prices)), key=prices.__getitem__, reverse=True):
            self.proposer.learn(state.groups, proposals[number], prices[number])
        return min(range(len(prices)), key=prices.__getitem__)

    def refresh(self, model: nn.Module) -> None:
        """Measure costs anew where the network has changed much."""
        if self._table is not None:
            self._table.refresh(model)


def choose_objective(
    model: nn.Module,
    groups: Sequence[Group],
    batches: Batches,
    settings: Settings,
    time_layers: LayerTimer | None,
) -> Objective:
    """Return the objective that the settings name; the model is not changed.

    Not named, it is latency; with a given step, or without a way to time layers, channels.
    """
    named = settings.objective or ("channels" if settings.step else "latency")
    if named == "latency" and time_layers is not None:
        runtime = RUNTIMES[settings.runtime]
        require_runtime(runtime)
        table = LatencyTable(time_layers, model)
        paying = measure_paying_widths(runtime, settings.threads)
        return Objective(BlockProposer(groups, settings.oracle_k, paying), table.cost, table)
    cost: Cost | None = None
    if named == "params":
        cost = weights_cost(model)
    elif named == "macs":
        inputs, _ = next(iter(batches))
        cost = macs_cost(model, inputs)
    return Objective(SetProposer(groups, settings.oracle_k, settings.step), cost)
