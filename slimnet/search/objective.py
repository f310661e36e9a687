"""What the search is after: how its steps are made and what each of them saves."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from torch import nn

from slimnet.groups import Group, plan_for
from slimnet.measure import (
    CLASSIFICATION,
    Task,
    measure_paying_widths,
    narrow_widths,
    widths_in_words,
)
from slimnet.records import Batches, PredictedLatency
from slimnet.search.allowed import allow_widths
from slimnet.search.cost import (
    Cost,
    macs_cost,
    price,
    saved_by,
    weights_cost,
    widths_of,
)
from slimnet.search.journal import Journal
from slimnet.search.latency import LatencyTable, LayerTimer
from slimnet.search.proposals import Proposal
from slimnet.search.proposer import BlockProposer, Proposer, SetProposer
from slimnet.search.state import State
from slimnet.settings import RUNTIMES, Settings


class Objective:
    """How steps are proposed, and what a step saves: None counts every unit as one.

    ``notes`` tell the user what was found out about widths.
    """

    def __init__(
        self,
        proposer: Proposer,
        cost: Cost | None,
        table: LatencyTable | None = None,
        notes: Sequence[str] = (),
    ) -> None:
        self.proposer = proposer
        self.notes = tuple(notes)
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
        prices = [price(nats, saved) for nats, saved in zip(sensitivities, savings, strict=True)]
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
    journal: Journal,
    task: Task = CLASSIFICATION,
) -> Objective:
    """Return the objective that the settings name; the model is not changed.

    Not named, it is latency; with a given step, or without a way to time layers, channels. With
    latency or ``round_to``, layers go from one allowed width to the next.
    """
    named = settings.objective or ("channels" if settings.step else "latency")
    timed = named == "latency" and time_layers is not None
    paying, notes = _paying_widths(settings, timed, journal)
    widths, blocks = narrow_widths(paying)
    allowed = allow_widths(model, groups, settings, widths)
    proposer: Proposer = SetProposer(groups, settings.oracle_k, settings.step, allowed)
    if timed or widths or allowed.multiple > 1:
        proposer = BlockProposer(groups, settings.oracle_k, allowed)
    if timed and time_layers is not None:
        timer = time_layers

        def recorded(network: nn.Module) -> Mapping[str, float]:
            times: Mapping[str, float] = journal.once("layer times", lambda: dict(timer(network)))
            return times

        table = LatencyTable(recorded, model, widths, blocks)
        return Objective(proposer, table.cost, table, notes)
    cost: Cost | None = None
    if named == "params":
        cost = weights_cost(model)
    elif named == "macs":
        cost = macs_cost(model, task.inputs(model, next(iter(batches)), 1))
    return Objective(proposer, cost, notes=notes)


def _paying_widths(
    settings: Settings, timed: bool, journal: Journal
) -> tuple[tuple[int, ...], tuple[str, ...]]:
    """Return the widths to go by, where there are such, and what ``round_to`` auto has to tell."""
    auto = settings.round_to == "auto"
    if not timed and not auto:
        return (), ()
    runtime = RUNTIMES[settings.runtime]
    paying = tuple(
        journal.once("paying widths", lambda: measure_paying_widths(runtime, settings.threads))
    )
    if not auto:
        return paying, ()
    pays, found = widths_in_words(paying)
    note = f"--round-to auto on {runtime}: {found}"
    return (paying if timed or pays else ()), (note,)
