"""What the search is after: how its steps are made and what each of them saves."""

from __future__ import annotations

from collections.abc import Sequence

from torch import nn

from slimnet.groups import Group, plan_for
from slimnet.measure import CLASSIFICATION, Task, measure_paying_widths, narrow_widths
from slimnet.records import Batches, PredictedLatency
from slimnet.search.cost import (
    Cost,
    macs_cost,
    price_factor,
    saved_by,
    weights_cost,
    widths_of,
)
from slimnet.search.latency import LatencyTable, LayerTimer
from slimnet.search.proposals import Proposal
from slimnet.search.proposer import BlockProposer, Proposer, SetProposer
from slimnet.search.state import State
from slimnet.settings import RUNTIMES, Settings


class Objective:
    """How steps are proposed, and what a step saves: None counts every unit as one."""

    def __init__(
        self, proposer: Proposer, cost: Cost | None, table: LatencyTable | None = None
    ) -> None:
        self.proposer = proposer
        self._cost = cost
        self._table = table

    def savings(self, state: State, proposals: Sequence[Proposal]) -> list[float]:
        """Return what each proposal saves, in the unit of the objective; never less than 0."""
        if self._cost is None:
            return [float(sum(len(units) for units in p.units)) for p in proposals]
        widths = widths_of(state.model)
        plans = [plan_for(state.groups, proposal.units) for proposal in proposals]
        return [max(0.0, saved_by(plan, state.model, widths, self._cost)) for plan in plans]

    def learn(
        self,
        state: State,
        proposals: Sequence[Proposal],
        savings: Sequence[float],
        sensitivities: Sequence[float],
    ) -> None:
        """Tell the proposer what each proposal costs for what it saves."""
        prices = [
            nats * price_factor(nats, saved)
            for nats, saved in zip(sensitivities, savings, strict=True)
        ]
        # dearest first, so that each group is remembered by its cheapest proposal
        for number in sorted(range(len(prices)), key=prices.__getitem__, reverse=True):
            self.proposer.learn(state.groups, proposals[number], prices[number])

    def refresh(self, model: nn.Module) -> None:
        """Measure costs anew where the network has changed much."""
        if self._table is not None:
            self._table.refresh(model)

    def prediction(self, model: nn.Module) -> PredictedLatency | None:
        """Return what the search expects a network to take, None where it did not count time."""
        return None if self._table is None else self._table.prediction(model)


def choose_objective(
    model: nn.Module,
    groups: Sequence[Group],
    batches: Batches,
    settings: Settings,
    time_layers: LayerTimer | None,
    task: Task = CLASSIFICATION,
) -> Objective:
    """Return the objective that the settings name; the model is not changed.

    Not named, it is latency; with a given step, or without a way to time layers, channels.
    """
    named = settings.objective or ("channels" if settings.step else "latency")
    if named == "latency" and time_layers is not None:
        runtime = RUNTIMES[settings.runtime]
        paying = measure_paying_widths(runtime, settings.threads)
        widths, blocks = narrow_widths(paying)
        table = LatencyTable(time_layers, model, widths, blocks)
        return Objective(BlockProposer(groups, settings.oracle_k, widths), table.cost, table)
    cost: Cost | None = None
    if named == "params":
        cost = weights_cost(model)
    elif named == "macs":
        cost = macs_cost(model, task.inputs(model, next(iter(batches)), 1))
    return Objective(SetProposer(groups, settings.oracle_k, settings.step), cost)
