"""Reconstruction errors: how far a consumer stays off its own outputs when inputs go, repaired."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping

import torch
from torch import Tensor, nn

from slimnet.groups import Group
from slimnet.recover.moments import Moments


def removal_errors(
    model: nn.Module, groups: Iterable[Group], moments: Mapping[str, Moments]
) -> dict[str, dict[str, Tensor]]:
    """Return, by group and consumer, what each unit's removal would cost, (units,) float64.

    The model is not changed. The cost is ``reconstruction_errors`` of all of the consumer's
    inputs that go with the unit; consumers without moments are left out, and so are groups none
    of whose consumers have any.
    """
    errors = {}
    for group in groups:
        inputs: dict[str, list[Tensor]] = defaultdict(list)
        for member in group.members:
            if member.direction == "in" and member.module in moments:
                inputs[member.module].append(torch.stack([member.unit, member.index], 1))
        if inputs:
            errors[group.name] = {
                name: _consumer_errors(
                    model.get_parameter(f"{name}.weight"),
                    moments[name],
                    torch.cat(pairs),
                    group.units,
                )
                for name, pairs in inputs.items()
            }
    return errors


def _consumer_errors(weight: Tensor, moments: Moments, pairs: Tensor, units: int) -> Tensor:
    """Return the error of each unit, (units,); ``pairs`` (entries, 2) are unit, input channel."""
    matrix = weight.detach().double().reshape(len(moments.inverse), -1, weight[0].numel())
    within = matrix.shape[2] // moments.kernel
    # removing a channel from one group of a grouped convolution removes it from all of them
    entries = torch.stack([pairs[:, 0], pairs[:, 1] % within], 1)
    unit, channel = torch.unique(entries, dim=0).unbind(1)
    inputs = torch.bincount(unit, minlength=units)
    errors = torch.zeros(units, dtype=torch.float64)
    # units with equally many input channels make one batch: nearly always all of them
    for many in torch.unique(inputs[inputs > 0]):
        columns = moments.columns(channel[inputs[unit] == many])
        blocks = columns.reshape(-1, int(many) * moments.kernel)
        errors[inputs == many] = reconstruction_errors(matrix, moments.inverse, blocks)
    return errors


def reconstruction_errors(weight: Tensor, inverse: Tensor, columns: Tensor) -> Tensor:
    """Return tr(W_c (H⁻¹_cc)⁻¹ W_cᵀ) of each block of columns c, (blocks,).

    It is the least E‖(W − V)x‖² over all V with zeros at c, summed over convolution groups, in
    squared error per row of the layer's input, with the ridge that the moments hold: the block
    form of the optimal brain surgeon's saliency (Hassibi and Stork 1993).

    Args:
        weight: (groups, outputs, columns) of one consumer.
        inverse: H⁻¹, (groups, columns, columns), or one column more for the constant.
        columns: (blocks, width) int64; the columns of one block go together.
    """
    inner = inverse[:, columns[:, :, None], columns[:, None, :]].double()
    gone = weight[:, :, columns].permute(0, 2, 3, 1)
    errors: Tensor = (gone * torch.linalg.solve(inner, gone)).sum((0, 2, 3))
    return errors.clamp_min(0)
