"""The objective of a search: how much candidates save, in units, weights, MACs or milliseconds."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from slimnet.execution import is_depthwise, output_channels, watching
from slimnet.groups import Group, plan_for
from slimnet.load import on_shapes
from slimnet.options import ObjectiveOptions
from slimnet.records import Batches, Inputs, Plan, PredictedLatency
from slimnet.search.candidates import BlockProposer, Proposal, Proposer, SetProposer
from slimnet.search.journal import Journal
from slimnet.search.state import State
from slimnet.search.widths import allow_widths
from slimnet.tasks import CLASSIFICATION, Task, fill_batch, forward
from slimnet.timing import (
    RUNTIMES,
    inputs_in_effect,
    measure_paying_widths,
    narrow_widths,
    width_in_effect,
    widths_in_words,
)


@dataclass(frozen=True)
class Width:
    """The input and output channels of one layer."""

    inputs: int
    outputs: int


Widths = Mapping[str, Width]
Cost = Callable[[str, Width], float]
"""The cost of one layer, by its name and width, in the unit of the objective."""

MIN_SAVING = 1e-12
"""Keeps the cost per saving finite where nothing is saved."""


def cost_factor(sensitivity: float, saved: float) -> float:
    """Return the factor from a sensitivity to its cost per saving.

    A sensitivity that is negative, a gain, counts more the more it saves.
    """
    saved = max(saved, MIN_SAVING)
    return 1 / saved if sensitivity > 0 else saved


def cost_per_saving(sensitivity: float, saved: float) -> float:
    """Return the loss increase per unit saved; the candidate with the lowest is removed."""
    return sensitivity * cost_factor(sensitivity, saved)


def widths_of(model: nn.Module) -> dict[str, Width]:
    """Return the width of every convolution and linear layer by module name."""
    widths = {}
    for name, outputs in output_channels(model).items():
        module = model.get_submodule(name)
        inputs = module.in_features if isinstance(module, nn.Linear) else module.in_channels
        assert isinstance(inputs, int)
        widths[name] = Width(inputs, outputs)
    return widths


def saved_by(plan: Plan, model: nn.Module, widths: Widths, cost: Cost) -> float:
    """Return how much a plan, in the numbering of ``model``, saves in the unit of ``cost``."""
    saved = 0.0
    for name, axes in plan.items():
        if name not in widths:
            continue
        before = widths[name]
        after = Width(
            inputs=before.inputs - len(axes.get("in", ())),
            outputs=before.outputs - len(axes.get("out", ())),
        )
        if is_depthwise(model.get_submodule(name)):
            after = Width(after.outputs, after.outputs)
        saved += cost(name, before) - cost(name, after)
    return saved


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


LayerTimer = Callable[[nn.Module], Mapping[str, float]]
"""Returns the milliseconds of each layer of a network by module name, and of the rest under "".

All are at one speed of the machine, even where the machine's own speed varies.
"""

REFRESH_BELOW = 0.8
"""Layers are timed again when the network takes this share of the time. A guess: with 0.9 they are
timed twice as often, with 0.64 half as often."""


class LatencyTable:
    """Predicts the milliseconds of each layer at any width, from the times at the present widths.

    The time of a convolution is proportional to its input times its output channels, both rounded
    up to the next of the given widths. A linear layer mostly reads its weights from memory: its
    time is proportional to the channels themselves. A network that has become a fifth faster is
    profiled again, since the prediction is best near the widths that were measured.

    Args:
        time_layers: returns the milliseconds of each layer of a network.
        model: the network before the search; it is not changed.
        input_widths: ascending; a convolution takes as long as with the next of these inputs.
        output_widths: the same for its outputs.
    """

    def __init__(
        self,
        time_layers: LayerTimer,
        model: nn.Module,
        input_widths: Sequence[int] = (),
        output_widths: Sequence[int] = (),
    ) -> None:
        self._input_widths, self._output_widths = input_widths, output_widths
        self._time_layers = time_layers
        self._profiles = 0
        self._profile(model)
        self._original_ms = self.total(self._widths)

    def _profile(self, model: nn.Module) -> None:
        self._profiles += 1
        self._times = dict(self._time_layers(model))
        self._widths = widths_of(model)
        modules = {name: model.get_submodule(name) for name in self._widths}
        self._depthwise = {name for name, module in modules.items() if is_depthwise(module)}
        self._linear = {name for name, module in modules.items() if isinstance(module, nn.Linear)}

    def cost(self, name: str, width: Width) -> float:
        """Return the milliseconds of a layer at this width."""
        known, now = self._in_effect(name, self._widths[name]), self._in_effect(name, width)
        share = now.outputs / known.outputs
        if name not in self._depthwise:
            share *= now.inputs / known.inputs
        return self._times.get(name, 0.0) * share

    def _in_effect(self, name: str, width: Width) -> Width:
        if name in self._linear:
            return width
        inputs = width_in_effect(width.inputs, self._input_widths)
        block = min(self._output_widths, default=0)
        outputs = width_in_effect(width.outputs, self._output_widths)
        return Width(inputs_in_effect(inputs, block), outputs)

    def total(self, widths: Widths) -> float:
        """Return the predicted milliseconds of the network at these widths."""
        return self._times.get("", 0.0) + sum(self.cost(n, w) for n, w in widths.items())

    def prediction(self, model: nn.Module) -> PredictedLatency:
        """Predict the time of a network, beside that of the first one; does not change it."""
        predicted_ms = self.total(widths_of(model))
        return PredictedLatency(self._original_ms, predicted_ms, self._profiles - 1)

    def refresh(self, model: nn.Module) -> None:
        """Profile the network anew if it has become much faster since the last time."""
        if self.total(widths_of(model)) < REFRESH_BELOW * self.total(self._widths):
            self._profile(model)


@dataclass(frozen=True)
class Objective:
    """How candidates are proposed, and how much each saves; cost=None: each unit saves 1.

    ``table`` predicts the time of networks, where time is what counts. ``notes`` tell the user what
    was found out about widths.
    """

    proposer: Proposer
    cost: Cost | None
    table: LatencyTable | None = None
    notes: tuple[str, ...] = ()

    def savings(self, state: State, proposals: Sequence[Proposal]) -> list[float]:
        """Return how much each candidate saves, in the unit of the objective; at least 0."""
        if self.cost is None:
            return [float(proposal.count) for proposal in proposals]
        widths = widths_of(state.model)
        plans = [plan_for(state.groups, proposal.units) for proposal in proposals]
        return [max(0.0, saved_by(plan, state.model, widths, self.cost)) for plan in plans]

    def learn(
        self,
        groups: Sequence[Group],
        proposals: Sequence[Proposal],
        savings: Sequence[float],
        sensitivities: Sequence[float],
    ) -> None:
        """Hand the cost per saving of each measured candidate to the proposer."""
        measured = zip(sensitivities, savings, strict=True)
        self.proposer.learn(groups, proposals, [cost_per_saving(*both) for both in measured])

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
    With latency or ``round_to``, candidates are blocks that take layers to an allowed width.
    """
    named = options.objective or ("channels" if options.step else "latency")
    timer = time_layers if named == "latency" else None
    paying, notes = _paying_widths(options, timer is not None, journal)
    widths, blocks = narrow_widths(paying)
    allowed = allow_widths(model, groups, options, widths)
    proposer: Proposer = SetProposer(groups, options.oracle_k, options.step, allowed)
    if timer is not None or widths or allowed.multiple > 1:
        proposer = BlockProposer(groups, options.oracle_k, allowed)
    if timer is not None:
        table = LatencyTable(_journalled(timer, journal), model, widths, blocks)
        return Objective(proposer, table.cost, table, notes)
    cost: Cost | None = None
    if named == "params":
        cost = weights_cost(model)
    elif named == "macs":
        cost = macs_cost(model, task.inputs(model, next(iter(batches)), 1))
    return Objective(proposer, cost, notes=notes)


def _journalled(timer: LayerTimer, journal: Journal) -> LayerTimer:
    """Return the timer, or what it measured in an interrupted run."""
    return lambda model: journal.replay_or_run("layer times", lambda: dict(timer(model)))


def _paying_widths(
    options: ObjectiveOptions, timed: bool, journal: Journal
) -> tuple[tuple[int, ...], tuple[str, ...]]:
    """Return the widths that pay, where the search goes by them, and notes on ``round_to`` auto."""
    auto = options.round_to == "auto"
    if not timed and not auto:
        return (), ()
    runtime = RUNTIMES[options.runtime]
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
