"""What a set of channels saves: the objective by which the search weighs a loss increase."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from slimnet.groups import is_depthwise, output_channels
from slimnet.load import on_shapes
from slimnet.measure import fill_batch, forward
from slimnet.records import Inputs, Plan
from slimnet.recover.watching import watching


@dataclass(frozen=True)
class Width:
    """How wide one layer is: its input and output channels."""

    inputs: int
    outputs: int


Widths = Mapping[str, Width]
Cost = Callable[[str, Width], float]
"""The cost of one layer, by its name and width, in the unit of the objective."""


LEAST_SAVING = 1e-12


def price_factor(sensitivity: float, saved: float) -> float:
    """Return what makes a price of a sensitivity: a gain is worth more the more it saves too."""
    saved = max(saved, LEAST_SAVING)
    return 1 / saved if sensitivity > 0 else saved


def price(sensitivity: float, saved: float) -> float:
    """Return a sensitivity for what is saved with it; the lowest price wins."""
    return sensitivity * price_factor(sensitivity, saved)


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
    """Return what the plan, in the numbering of ``model``, saves in the unit of ``cost``."""
    saved = 0.0
    for name, sides in plan.items():
        if name not in widths:
            continue
        before = widths[name]
        after = replace(
            before,
            inputs=before.inputs - len(sides.get("in", ())),
            outputs=before.outputs - len(sides.get("out", ())),
        )
        if is_depthwise(model.get_submodule(name)):
            after = replace(after, inputs=after.outputs)
        saved += cost(name, before) - cost(name, after)
    return saved


def weights_cost(model: nn.Module) -> Cost:
    """Cost in weights: of every convolution and linear layer, biases not counted."""
    per_pair = {name: _weights_per_pair(model.get_submodule(name)) for name in widths_of(model)}

    def cost(name: str, width: Width) -> float:
        weights, depthwise = per_pair[name]
        return weights * width.outputs * (1 if depthwise else width.inputs)

    return cost


def macs_cost(model: nn.Module, example: Inputs) -> Cost:
    """Cost in multiply-accumulates for one image; the model is not changed."""
    positions = count_positions(model, example)
    weights = weights_cost(model)
    return lambda name, width: weights(name, width) * positions.get(name, 0)


def count_positions(model: nn.Module, example: Inputs) -> dict[str, int]:
    """Return at how many positions of one image each layer applies its weights.

    The model is not changed.
    """
    return on_shapes(_positions, model, fill_batch(example, 1))


def _positions(model: nn.Module, image: Inputs) -> dict[str, int]:
    positions: dict[str, int] = {}

    def watch(name: str, module: nn.Module, inputs: Tensor, output: Tensor) -> None:
        axis = -1 if isinstance(module, nn.Linear) else 1
        # a transposed convolution applies its weights once for each position that it reads
        maps = inputs if getattr(module, "transposed", False) else output
        here = maps.numel() // maps.shape[axis]  # not maps[0]: windows or frames lie beside it
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
