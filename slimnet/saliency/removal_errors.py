"""What the metrics in GROUP_METRICS score units from: the errors that removals leave, repaired."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Protocol

from torch import Tensor


class RemovalErrors(Protocol):
    """Squared errors per row of the consumers' inputs; ``slimnet.recover`` finds them."""

    @property
    def groups(self) -> Collection[str]:
        """The names of the groups in ``alone``."""
        ...

    @property
    def alone(self) -> Mapping[str, Mapping[str, Tensor]]:
        """Group name -> consumer -> (units,): what the removal of each unit alone leaves."""
        ...

    @property
    def together(self) -> Mapping[str, Tensor]:
        """Group name -> (units,): what a unit's removal leaves with all that go before it."""
        ...
