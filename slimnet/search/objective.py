"""The objective of a search: how much candidates save, in units, weights, MACs or milliseconds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from slimnet.execution import is_depthwise, watching
from slimnet.groups import Group, plan_for
from slimnet.load import on_shapes
from slimnet.options import ObjectiveOptions
from slimnet.records import Batches, Inputs, MeasuredTable, Plan, PredictedLatency
from slimnet.search.candidates import Proposal
from slimnet.search.journal import Journal
from slimnet.search.latency_table import (
    Cost,
    LatencyTable,
    LayerTimer,
    Width,
    Widths,
    read_latency_table,
    widths_of,
)
from slimnet.search.state import State
from slimnet.search.widths import AllowedWidths, allow_widths
from slimnet.tasks import CLASSIFICATION, Task, fill_batch, forward
from slimnet.timing import (
    RUNTIMES,
    measure_paying_widths,
    narrow_widths,
    widths_in_words,
)

MIN_SAVING = 1e-12
"""Keeps the cost per saving finite where nothing is saved."""


def cost_per_saving(sensitivity: float, saved: float) -> float:
    """Return the loss increase per unit saved; the candidate with the lowest is removed.

    A sensitivity that is negative, a gain, counts more the more it saves.
    """
    saved = max(saved, MIN_SAVING)
    return sensitivity * (1 / saved if sensitivity > 0 else saved)


def removed_widths(plan: Plan, model: nn.Module, widths: Widths) -> dict[str, Width]:
    """Return the inputs and outputs that each layer of ``model`` loses by a plan for it."""
    removed = {}
    for name, axes in plan.items():
        if name in widths:
            inputs, outputs = len(axes.get("in", ())), len(axes.get("out", ()))
            if is_depthwise(model.get_submodule(name)):
                inputs = outputs
            removed[name] = Width(inputs, outputs)
    return removed


def saved_by(plan: Plan, model: nn.Module, widths: Widths, cost: Cost) -> float:
    """Return how much a plan for ``model`` saves, in the unit of ``cost``."""
    return saved(removed_widths(plan, model, widths), widths, cost)


def saved(removed: Widths, widths: Widths, cost: Cost) -> float:
    """Return how much is saved where layers lose these inputs and outputs."""
    return sum(
        cost(name, widths[name]) - cost(name, widths[name].without(less))
        for name, less in removed.items()
    )


def weights_cost(model: nn.Module) -> Cost:
    """Return the cost in weights of convolutions and linear layers, without biases."""
    per_pair = {name: _weights_per_pair(model.get_submodule(name)) for name in widths_of(model)}

    def cost(name: str, width: Width) -> float:
        weights, depthwise = per_pair[name]
        return weights * width.outputs * (1 if depthwise else width.inputs)

    return cost


def macs_cost(model: nn.Module, example: Inputs) -> Cost:
    """Return the cost in multiply-accumulates for one image; the model is not changed."""
    positions = on_shapes(_count_positions, model, fill_batch(example, 1))
    weights = weights_cost(model)
    return lambda name, width: weights(name, width) * positions.get(name, 0)


def _count_positions(model: nn.Module, image: Inputs) -> dict[str, int]:
    """Return how often each layer applies its weights on one image; the model is not changed."""
    positions: dict[str, int] = {}

    def watch(name: str, module: nn.Module, inputs: Tensor, output: Tensor) -> None:
        axis = -1 if isinstance(module, nn.Linear) else 1
        # a transposed convolution applies its weights once for each position that it reads
        maps = inputs if getattr(module, "transposed", False) else output
        # of the whole batch: one image may come to this layer as several windows or frames
        here = maps.numel() // maps.shape[axis]
        positions[name] = positions.get(name, 0) + here

    with torch.no_grad(), watching(model, widths_of(model), watch):
        forward(model, image)
    return positions


def _weights_per_pair(module: nn.Module) -> tuple[float, bool]:
    """Return the weights for one pair of input and output channel, and whether it is depthwise."""
    weight = module.weight
    assert isinstance(weight, Tensor)
    if is_depthwise(module):
        return weight[0].numel(), True
    groups = getattr(module, "groups", 1)
    return weight[0, 0].numel() / groups, False


@dataclass(frozen=True)
class Objective:
    """How much the removal of candidates saves; cost=None: each unit saves 1.

    ``allowed`` are the widths that layers may have. ``table`` predicts the time of networks, where
    time is what counts. ``notes`` tell the user what was found out about widths.
    """

    allowed: AllowedWidths
    cost: Cost | None
    table: LatencyTable | None = None
    notes: tuple[str, ...] = ()

    def widths(self, state: State) -> Widths:
        """Return the width of everything that costs; without a cost, the units of each group."""
        if self.cost is None:
            return {group.name: Width(0, group.units) for group in state.groups}
        return widths_of(state.model)

    def cost_of(self, name: str, width: Width) -> float:
        """Return what one of ``widths`` costs at this width."""
        return float(width.outputs) if self.cost is None else self.cost(name, width)

    def removed(self, state: State, proposal: Proposal, widths: Widths) -> dict[str, Width]:
        """Return what a candidate takes from each of ``widths``."""
        if self.cost is None:
            pairs = zip(state.groups, proposal.units, strict=True)
            return {group.name: Width(0, len(units)) for group, units in pairs if len(units)}
        return removed_widths(plan_for(state.groups, proposal.units), state.model, widths)

    def savings(self, state: State, proposals: Sequence[Proposal]) -> list[float]:
        """Return how much each candidate saves, in the unit of the objective; at least 0."""
        widths = self.widths(state)
        removed = (self.removed(state, proposal, widths) for proposal in proposals)
        return [max(0.0, saved(less, widths, self.cost_of)) for less in removed]

    def refresh(self, model: nn.Module) -> None:
        """Time the layers again where the network has changed much."""
        if self.table is not None:
            self.table.refresh(model)

    def prediction(self, model: nn.Module) -> PredictedLatency | None:
        """Predict the time of a network; None where the objective is not time."""
        return None if self.table is None else self.table.prediction(model)


def choose_objective(
    model: nn.Module,
    groups: Sequence[Group],
    batches: Batches,
    options: ObjectiveOptions,
    time_layers: LayerTimer | None,
    journal: Journal,
    task: Task = CLASSIFICATION,
) -> Objective:
    """Return the objective that the options name; the model is not changed.

    The default is latency, or channels where the options give a step or layers cannot be timed.
    With ``latency_table`` nothing is measured.

    Raises:
        InputError: see ``read_latency_table``.
    """
    named = options.objective or ("channels" if options.step else "latency")
    file = options.latency_table
    given = None if file is None else read_latency_table(file, model)
    timed = given is not None or (named == "latency" and time_layers is not None)
    paying, notes = _paying_widths(options, timed, journal, given)
    widths, blocks = narrow_widths(paying)
    allowed = allow_widths(model, groups, options, widths)
    if timed:
        known = given or MeasuredTable(
            RUNTIMES[options.runtime].measured_on(options.threads), paying, ()
        )
        timer = None if given or time_layers is None else _journalled(time_layers, journal)
        table = LatencyTable(timer, model, widths, blocks, known)
        if given:
            notes += (f"the search went by earlier layer times, measured on {given.measured_on}",)
        return Objective(allowed, table.cost, table, notes)
    cost: Cost | None = None
    if named == "params":
        cost = weights_cost(model)
    elif named == "macs":
        cost = macs_cost(model, task.inputs(model, next(iter(batches)), 1))
    return Objective(allowed, cost, notes=notes)


def _journalled(timer: LayerTimer, journal: Journal) -> LayerTimer:
    """Return the timer, or what it measured in an interrupted run."""
    return lambda model: journal.replay_or_run("layer times", lambda: dict(timer(model)))


def _paying_widths(
    options: ObjectiveOptions, timed: bool, journal: Journal, given: MeasuredTable | None
) -> tuple[tuple[int, ...], tuple[str, ...]]:
    """Return the widths that pay, where the search goes by them, and notes on ``round_to`` auto."""
    auto = options.round_to == "auto"
    if not timed and not auto:
        return (), ()
    runtime = RUNTIMES[options.runtime]
    if given is not None:
        paying = given.paying_widths
    else:
        paying = tuple(
            journal.replay_or_run(
                "paying widths", lambda: measure_paying_widths(runtime, options.threads)
            )
        )
    if not auto:
        return paying, ()
    pays, found = widths_in_words(paying)
    note = f"--round-to auto on {runtime.long_name}: {found}"
    return (paying if timed or pays else ()), (note,)
