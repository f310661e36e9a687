"""Closed-form repair: the consumers' remaining weights make up for the inputs that go.

W ← W − W_c (H⁻¹_cc)⁻¹ H⁻¹_c, the block step of the optimal brain surgeon (Hassibi and Stork 1993),
is the least-squares solution for the layer's own output on calibration images.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from slimnet.records import Plan
from slimnet.recover.moments import Moments


def removed_inputs(model: nn.Module, plan: Plan) -> dict[str, Tensor]:
    """Return, by consumer, its input channels that the plan removes, counted within one group."""
    removed = {}
    for name, sides in plan.items():
        if "in" in sides:
            module = model.get_submodule(name)
            index = torch.tensor(sides["in"])
            if isinstance(module, nn.Conv2d) and module.groups > 1:
                index = torch.unique(index % (module.in_channels // module.groups))
            removed[name] = index
    return removed


def repaired_weights(
    model: nn.Module, plan: Plan, moments: Mapping[str, Moments]
) -> dict[str, Tensor]:
    """Return new values, by parameter or buffer name, for the consumers of the plan's channels.

    The model is not changed. The columns that go come out as zeros. Consumers without moments
    are left as they are.
    """
    values: dict[str, Tensor] = {}
    for name, channels in removed_inputs(model, plan).items():
        if name not in moments:
            continue
        known = moments[name]
        weight = model.get_parameter(f"{name}.weight")
        matrix = weight.detach().double().reshape(known.inverse.shape[0], -1, weight[0].numel())
        gone = known.columns(channels)
        change = _least_squares_change(matrix, known.inverse, gone)
        inputs = matrix.shape[2]
        repaired = matrix - change[:, :, :inputs]
        repaired[:, :, gone] = 0
        values[f"{name}.weight"] = repaired.reshape(weight.shape).to(weight.dtype)
        if known.bias:
            bias = get_state(model, known.bias)
            shift = change[:, :, inputs].flatten().to(bias.dtype)
            # a running mean is subtracted from the output where a bias is added
            values[known.bias] = bias + shift if "running_mean" in known.bias else bias - shift
    return values


def _least_squares_change(weight: Tensor, inverse: Tensor, gone: Tensor) -> Tensor:
    """Return W_c (H⁻¹_cc)⁻¹ H⁻¹_c, (groups, outputs, columns), for the columns c that go."""
    rows = inverse[:, gone].double()
    solved: Tensor = torch.linalg.solve(rows[:, :, gone], rows)
    return weight[:, :, gone] @ solved


@torch.no_grad()
def set_values(model: nn.Module, values: Mapping[str, Tensor]) -> None:
    """Change the model in place: give parameters and buffers these values."""
    for name, value in values.items():
        get_state(model, name).copy_(value)


@contextmanager
def replaced(model: nn.Module, values: Mapping[str, Tensor]) -> Iterator[None]:
    """Change the model for the time of the block only: it holds these values, uncopied."""
    states = {name: get_state(model, name) for name in values}
    before = {name: state.data for name, state in states.items()}
    try:
        for name, value in values.items():
            states[name].data = laid_out_as(value, states[name])
        yield
    finally:
        for name, value in before.items():
            states[name].data = value


def laid_out_as(value: Tensor, state: Tensor) -> Tensor:
    """Return the value in the memory format of a state; itself where it has that already.

    A convolution would otherwise change the layout of its weights in every call.
    """
    if state.ndim == 4 and state.is_contiguous(memory_format=torch.channels_last):
        return value.contiguous(memory_format=torch.channels_last)
    return value


def get_state(model: nn.Module, name: str) -> Tensor:
    """Return a parameter or buffer by its name."""
    module, _, leaf = name.rpartition(".")
    state = getattr(model.get_submodule(module), leaf)
    assert isinstance(state, Tensor)
    return state
