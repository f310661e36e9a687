"""Reconstruction errors: how far consumers stay off their own outputs when inputs go, repaired."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from slimnet.groups import Group
from slimnet.recover.moments import Moments

NO_COLUMN = -1


@dataclass
class Consumer:
    """One consumer of a group, while units of the group go.

    ``weight`` is (convolution groups, outputs, columns) and ``inverse`` H⁻¹ with as many columns
    or one more for the constant, both float64. ``columns`` (units, widest) int64 are each unit's,
    from the first on, then -1.
    """

    weight: Tensor
    inverse: Tensor
    columns: Tensor

    def errors(self, units: Tensor) -> Tensor:
        """Return the error that each of these units leaves if it goes alone, (units,) float64."""
        columns = self.columns[units]
        widths = (columns != NO_COLUMN).sum(1)
        errors = torch.zeros(len(units), dtype=torch.float64)
        # units with equally many columns make one batch: nearly always all of them
        for width in torch.unique(widths[widths > 0]).tolist():
            alike = widths == width
            blocks = columns[alike, :width]
            errors[alike] = reconstruction_errors(self.weight, self.inverse, blocks)
        return errors

    def remove(self, units: Tensor) -> None:
        """Change this consumer: these units are gone from it, and it is repaired."""
        gone = torch.unique(self.columns[units])
        gone = gone[gone != NO_COLUMN]
        rows = self.inverse[:, gone]
        solved = torch.linalg.solve(rows[:, :, gone], rows)
        self.weight -= self.weight[:, :, gone] @ solved[:, :, : self.weight.shape[2]]
        self.weight[:, :, gone] = 0
        self.inverse.baddbmm_(rows.transpose(1, 2), solved, alpha=-1)
        self.inverse[:, gone] = 0
        self.inverse[:, :, gone] = 0
        # what is gone is no part of any other block, and costs nothing
        self.inverse[:, gone, gone] = 1

    def only(self, units: Tensor) -> Consumer:
        """Return a copy that has these units alone, numbered anew; their errors are the same."""
        columns = self.columns[units]
        kept = torch.unique(columns[columns != NO_COLUMN])
        numbers = torch.full((self.weight.shape[2] + 1,), NO_COLUMN)
        numbers[kept] = torch.arange(len(kept))
        return Consumer(
            self.weight[:, :, kept],
            self.inverse[:, kept][:, :, kept],
            numbers[columns],  # -1 stays -1: it is the last number
        )


def consumers_of(
    group: Group, weights: Mapping[str, Tensor], moments: Mapping[str, Moments]
) -> dict[str, Consumer]:
    """Return the consumers of a group that have moments, by name, as copies."""
    inputs: dict[str, list[Tensor]] = defaultdict(list)
    for member in group.members:
        if member.direction == "in" and member.module in moments:
            inputs[member.module].append(torch.stack([member.unit, member.index], 1))
    return {
        name: _consumer(weights[name], moments[name], torch.cat(pairs), group.units)
        for name, pairs in inputs.items()
    }


def _consumer(weight: Tensor, moments: Moments, pairs: Tensor, units: int) -> Consumer:
    """Return a consumer; ``pairs`` (entries, 2) are unit and input channel."""
    matrix = weight.detach().double().reshape(len(moments.inverse), -1, weight[0].numel())
    within = matrix.shape[2] // moments.kernel
    # removing a channel from one group of a grouped convolution removes it from all of them
    entries = torch.stack([pairs[:, 0], pairs[:, 1] % within], 1)
    unit, channel = torch.unique(entries, dim=0).unbind(1)
    inputs = torch.bincount(unit, minlength=units)
    first = torch.cumsum(inputs, 0) - inputs
    place = torch.arange(len(unit)) - first[unit]
    columns = torch.full((units, int(inputs.max()), moments.kernel), NO_COLUMN)
    columns[unit, place] = moments.columns(channel).reshape(-1, moments.kernel)
    inverse = moments.inverse.to(torch.float64, copy=True)
    return Consumer(matrix.clone(), inverse, columns.flatten(1))


def reconstruction_errors(weight: Tensor, inverse: Tensor, columns: Tensor) -> Tensor:
    """Return tr(W_c (H⁻¹_cc)⁻¹ W_cᵀ) of each block of columns c, (blocks,).

    It is the least E‖(W − V)x‖² over all V with zeros at c, summed over convolution groups, in
    squared error per row of the layer's input, with the ridge that the moments hold: the block
    form of the optimal brain surgeon's saliency (Hassibi and Stork 1993).

    Args:
        weight: (groups, outputs, columns) of one consumer.
        inverse: H⁻¹, (groups, columns, columns) float64, or one column more for the constant.
        columns: (blocks, width) int64; the columns of one block go together.
    """
    inner = inverse[:, columns[:, :, None], columns[:, None, :]]
    gone = weight[:, :, columns].permute(0, 2, 3, 1)
    errors: Tensor = (gone * torch.linalg.solve(inner, gone)).sum((0, 2, 3))
    return errors.clamp_min(0)
