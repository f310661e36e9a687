"""Removal errors: the output error that stays after the repair when units go.

A unit's error is known alone and together with others. Units that are nearly copies of one another
cost next to nothing alone, and much together. In backward elimination each unit is scored after
the repair for all that went before it, and one of the copies stays (Frantar and Alistarh 2022,
Optimal Brain Compression, there for single weights).
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor, nn

from slimnet.groups import Group
from slimnet.repair.repair import InverseGram

NO_COLUMN = -1


@dataclass
class Consumer:
    """One consumer of a group, while units of the group go.

    Args:
        weight: (convolution groups, outputs, columns) float64.
        inverse: H⁻¹, (convolution groups, columns, columns) float64, or one column more for the
            constant.
        columns: (units, widest) int64: the columns of each unit, filled up with -1.
    """

    weight: Tensor
    inverse: Tensor
    columns: Tensor

    def errors(self, units: Tensor) -> Tensor:
        """Return the error that each of these units leaves if it goes alone, (units,) float64."""
        columns = self.columns[units]
        widths = (columns != NO_COLUMN).sum(1)
        errors = torch.zeros(len(units), dtype=torch.float64)
        # units with equally many columns, nearly always all of them, are solved at once
        for width in torch.unique(widths[widths > 0]).tolist():
            alike = widths == width
            blocks = columns[alike, :width]
            errors[alike] = reconstruction_errors(self.weight, self.inverse, blocks)
        return errors

    def remove(self, units: Tensor) -> None:
        """Change this consumer in place: these units are gone from it, and it is repaired."""
        gone = torch.unique(self.columns[units])
        gone = gone[gone != NO_COLUMN]
        rows = self.inverse[:, gone]
        solved = torch.linalg.solve(rows[:, :, gone], rows)
        self.weight -= self.weight[:, :, gone] @ solved[:, :, : self.weight.shape[2]]
        self.weight[:, :, gone] = 0
        self.inverse.baddbmm_(rows.transpose(1, 2), solved, alpha=-1)
        self.inverse[:, gone] = 0
        self.inverse[:, :, gone] = 0
        # a removed column is no part of any other block, and costs nothing
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
    group: Group, weights: Mapping[str, Tensor], inverse_grams: Mapping[str, InverseGram]
) -> dict[str, Consumer]:
    """Return the consumers of a group that have an inverse Gram matrix, by name, as copies."""
    inputs: dict[str, list[Tensor]] = defaultdict(list)
    for member in group.members:
        if member.direction == "in" and member.module in inverse_grams:
            inputs[member.module].append(torch.stack([member.unit, member.index], 1))
    return {
        name: _consumer(weights[name], inverse_grams[name], torch.cat(pairs), group.units)
        for name, pairs in inputs.items()
    }


def _consumer(weight: Tensor, known: InverseGram, pairs: Tensor, units: int) -> Consumer:
    """Return a consumer; ``pairs`` (entries, 2) are unit and input channel."""
    matrix = weight.detach().double().reshape(len(known.inverse), -1, weight[0].numel())
    within = matrix.shape[2] // known.kernel
    # removing a channel from one group of a grouped convolution removes it from all of them
    entries = torch.stack([pairs[:, 0], pairs[:, 1] % within], 1)
    unit, channel = torch.unique(entries, dim=0).unbind(1)
    inputs = torch.bincount(unit, minlength=units)
    first = torch.cumsum(inputs, 0) - inputs
    place = torch.arange(len(unit)) - first[unit]
    columns = torch.full((units, int(inputs.max()), known.kernel), NO_COLUMN)
    columns[unit, place] = known.columns(channel).reshape(-1, known.kernel)
    inverse = known.inverse.to(torch.float64, copy=True)
    return Consumer(matrix.clone(), inverse, columns.flatten(1))


def reconstruction_errors(weight: Tensor, inverse: Tensor, columns: Tensor) -> Tensor:
    """Return tr(W_c (H⁻¹_cc)⁻¹ W_cᵀ) of each block of columns c, (blocks,).

    It is the least E‖(W − V)x‖² over all V with zeros at c, summed over convolution groups, in
    squared error per row of the layer's input, with the ridge that H holds: the block form of the
    optimal brain surgeon's saliency (Hassibi and Stork 1993).

    Args:
        weight: (groups, outputs, columns) of one consumer.
        inverse: H⁻¹, (groups, columns, columns) float64, or one column more for the constant.
        columns: (blocks, width) int64; the columns of one block go together.
    """
    inner = inverse[:, columns[:, :, None], columns[:, None, :]]
    gone = weight[:, :, columns].permute(0, 2, 3, 1)
    errors: Tensor = (gone * torch.linalg.solve(inner, gone)).sum((0, 2, 3))
    return errors.clamp_min(0)


MAX_ROUNDS = 64
"""All units that are left are scored anew at most this often. A guess."""

SHORTLIST = 4
"""A round that removes n units scores the 4 n cheapest one after the other. A guess; with all
units on the list the order does not depend on the rounds, as a test holds."""


def joint_errors(consumers: Sequence[Consumer], units: int) -> Tensor:
    """Return the error of each unit together with all that go before it, (units,) float64.

    The consumers are changed: all units are gone from them. The error is that of
    ``reconstruction_errors``, summed over the consumers.
    """
    left, errors = torch.arange(units), torch.zeros(units, dtype=torch.float64)
    together, in_a_round = 0.0, -(-units // MAX_ROUNDS)
    while len(left):
        count = min(in_a_round, len(left))
        order = torch.argsort(_errors(consumers, left), stable=True)
        going = _cheapest(consumers, left[order[: SHORTLIST * count]], count)
        for unit, error in going.items():
            together += error
            errors[unit] = together
        gone = torch.tensor(list(going))
        for consumer in consumers:
            consumer.remove(gone)
        left = left[~torch.isin(left, gone)]
    return errors


def _cheapest(consumers: Sequence[Consumer], units: Tensor, count: int) -> dict[int, float]:
    """Return ``count`` of these units in the order in which they go, and each one's error then."""
    parts = [consumer.only(units) for consumer in consumers]
    left, going = torch.arange(len(units)), {}
    while True:
        errors = _errors(parts, left)
        place = int(errors.argmin())
        unit = left[place : place + 1]
        going[int(units[unit])] = float(errors[place])
        if len(going) == count:
            return going
        for part in parts:
            part.remove(unit)
        left = left[left != unit]


def _errors(consumers: Sequence[Consumer], units: Tensor) -> Tensor:
    """Return the error that each of these units leaves if it goes next, (units,) float64."""
    return torch.stack([consumer.errors(units) for consumer in consumers]).sum(0)


class RemovalErrors:
    """The errors of all units of some groups, computed when they are first asked for.

    The model is not changed. Consumers without an inverse Gram matrix are left out of ``alone``,
    and groups that have such a consumer out of ``together``.

    Args:
        model: the network as it stands; it must stay so while errors are asked for.
        groups: the groups of ``model``.
        inverse_grams: of the consumers, by module name.
        before: errors of an earlier state of the network. They hold for every group with the same
            units whose consumers have the same weights and inverses still.
    """

    def __init__(
        self,
        model: nn.Module,
        groups: Sequence[Group],
        inverse_grams: Mapping[str, InverseGram],
        before: RemovalErrors | None = None,
    ) -> None:
        known = {} if before is None else before._groups
        self._groups: dict[str, _GroupErrors] = {}
        for group in groups:
            now, old = _GroupErrors(model, group, inverse_grams), known.get(group.name)
            self._groups[group.name] = old if old is not None and old.holds_for(now) else now

    @property
    def groups(self) -> list[str]:
        """The names of the groups in ``alone``."""
        return [name for name, group in self._groups.items() if group.inverse_grams]

    @cached_property
    def alone(self) -> dict[str, dict[str, Tensor]]:
        """Group name -> consumer -> (units,): the error when each unit goes alone."""
        return {name: self._groups[name].alone for name in self.groups}

    @cached_property
    def together(self) -> dict[str, Tensor]:
        """Group name -> (units,): the error of each unit with all that go before it.

        They go in the order that costs least at every step. See ``joint_errors``.
        """
        return {name: group.together for name, group in self._groups.items() if group.complete}


class _GroupErrors:
    """The errors of one group."""

    def __init__(
        self, model: nn.Module, group: Group, inverse_grams: Mapping[str, InverseGram]
    ) -> None:
        self._group = group
        self.inverse_grams = {
            name: inverse_grams[name] for name in group.consumers if name in inverse_grams
        }
        self._weights = {name: model.get_parameter(f"{name}.weight") for name in self.inverse_grams}

    @property
    def complete(self) -> bool:
        """Whether there are consumers, and all have an inverse Gram matrix."""
        return 0 < len(self.inverse_grams) == len(self._group.consumers)

    @cached_property
    def alone(self) -> dict[str, Tensor]:
        every = torch.arange(self._group.units)
        return {name: consumer.errors(every) for name, consumer in self._consumers().items()}

    @cached_property
    def together(self) -> Tensor:
        return joint_errors(list(self._consumers().values()), self._group.units)

    def holds_for(self, other: _GroupErrors) -> bool:
        """Tell whether the errors of the other are the same."""
        if not torch.equal(self._group.original_units, other._group.original_units):
            return False
        return self._weights.keys() == other._weights.keys() and all(
            self.inverse_grams[name] is other.inverse_grams[name]
            and torch.equal(weight, other._weights[name])
            for name, weight in self._weights.items()
        )

    def _consumers(self) -> dict[str, Consumer]:
        return consumers_of(self._group, self._weights, self.inverse_grams)
