"""What the repair cannot make up for when units go: each alone, or one after the other."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property

import torch
from torch import Tensor, nn

from slimnet.groups import Group
from slimnet.recover.elimination import joint_errors
from slimnet.recover.moments import Moments
from slimnet.recover.reconstruction import Consumer, consumers_of


class RemovalErrors:
    """The reconstruction errors of all units of some groups, found when they are first asked for.

    The model is not changed. Consumers without moments are left out of ``alone``, and groups that
    have such a consumer out of ``together``.

    Args:
        model: the network as it stands, and stays for as long as errors are asked for.
        groups: the groups of ``model``.
        moments: of the consumers, by module name.
        before: errors of an earlier state of the network. They count for every group with the
            same units whose consumers have the same weights and moments still.
    """

    def __init__(
        self,
        model: nn.Module,
        groups: Sequence[Group],
        moments: Mapping[str, Moments],
        before: RemovalErrors | None = None,
    ) -> None:
        known = {} if before is None else before._groups
        self._groups: dict[str, _GroupErrors] = {}
        for group in groups:
            now, old = _GroupErrors(model, group, moments), known.get(group.name)
            self._groups[group.name] = old if old is not None and old.counts_for(now) else now

    @property
    def groups(self) -> list[str]:
        """The names of the groups in ``alone``."""
        return [name for name, group in self._groups.items() if group.known]

    @cached_property
    def alone(self) -> dict[str, dict[str, Tensor]]:
        """By group and consumer, what the removal of each unit alone would cost, (units,)."""
        return {name: self._groups[name].alone for name in self.groups}

    @cached_property
    def together(self) -> dict[str, Tensor]:
        """By group, what each unit costs with all that go before it, (units,).

        They go in the order that costs least at every step. See ``joint_errors``.
        """
        known = {name: group for name, group in self._groups.items() if group.complete}
        return {name: group.together for name, group in known.items()}


class _GroupErrors:
    """The errors of one group."""

    def __init__(self, model: nn.Module, group: Group, moments: Mapping[str, Moments]) -> None:
        self._group = group
        self._moments = {name: moments[name] for name in group.consumers if name in moments}
        self._weights = {name: model.get_parameter(f"{name}.weight") for name in self._moments}

    @property
    def known(self) -> bool:
        """Whether there are consumers that have moments."""
        return bool(self._moments)

    @property
    def complete(self) -> bool:
        """Whether there are consumers, and all have moments."""
        return self.known and len(self._moments) == len(self._group.consumers)

    @cached_property
    def alone(self) -> dict[str, Tensor]:
        every = torch.arange(self._group.units)
        return {name: consumer.errors(every) for name, consumer in self._consumers().items()}

    @cached_property
    def together(self) -> Tensor:
        return joint_errors(list(self._consumers().values()), self._group.units)

    def counts_for(self, other: _GroupErrors) -> bool:
        """Tell whether the errors of the other are the same."""
        if not torch.equal(self._group.original_units, other._group.original_units):
            return False
        return self._weights.keys() == other._weights.keys() and all(
            self._moments[name] is other._moments[name]
            and torch.equal(weight, other._weights[name])
            for name, weight in self._weights.items()
        )

    def _consumers(self) -> dict[str, Consumer]:
        """Return the consumers as they stand, as copies."""
        return consumers_of(self._group, self._weights, self._moments)
