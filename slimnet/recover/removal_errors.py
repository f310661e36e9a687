"""What the repair cannot make up for when units go: each alone, or one after the other."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property

import torch
from torch import Tensor, nn

from slimnet.groups import Group
from slimnet.recover.elimination import joint_errors
from slimnet.recover.moments import Moments
from slimnet.recover.reconstruction import consumers_of


class RemovalErrors:
    """The reconstruction errors of all units of some groups, found when they are first asked for.

    The model is not changed. Consumers without moments are left out of ``alone``, and groups that
    have such a consumer out of ``together``.
    """

    def __init__(
        self, model: nn.Module, groups: Sequence[Group], moments: Mapping[str, Moments]
    ) -> None:
        self._model, self._groups, self._moments = model, groups, moments

    @cached_property
    def alone(self) -> dict[str, dict[str, Tensor]]:
        """By group and consumer, what the removal of each unit alone would cost, (units,)."""
        errors = {}
        for group in self._groups:
            consumers = consumers_of(self._model, group, self._moments)
            every = torch.arange(group.units)
            if consumers:
                errors[group.name] = {name: one.errors(every) for name, one in consumers.items()}
        return errors

    @cached_property
    def together(self) -> dict[str, Tensor]:
        """By group, what each unit costs with all that go before it, (units,).

        They go in the order that costs least at every step. See ``joint_errors``.
        """
        errors = {}
        for group in self._groups:
            consumers = consumers_of(self._model, group, self._moments)
            if consumers and len(consumers) == len(group.consumers):
                errors[group.name] = joint_errors(list(consumers.values()), group.units)
        return errors
