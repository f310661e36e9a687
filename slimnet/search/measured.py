"""What the oracle found out at one step, as a record and as plain values for the journal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from slimnet.records import Sensitivity
from slimnet.search.proposals import Proposal


@dataclass(frozen=True)
class Measured:
    """The proposals of a step, what each saves and costs, and the number of the best one, if any.

    ``losses`` are about those of the network as it stood, (images,), in nats, and ``losses_after``
    those that the best proposal leads to; ``savings`` are in the
    objective's unit. ``glances`` is that of ``Proposed``.
    """

    losses: Tensor
    losses_after: Tensor
    proposals: Sequence[Proposal]
    savings: Sequence[float]
    sensitivities: Sequence[Sensitivity]
    chosen: int | None
    glances: int | None

    @property
    def loss(self) -> float:
        """The mean loss in nats."""
        return float(self.losses.mean())

    def as_plain(self) -> dict[str, Any]:
        """Return lists and numbers, from which ``from_plain`` makes the same record."""
        return {
            "losses": self.losses.tolist(),
            "losses_after": self.losses_after.tolist(),
            "proposals": [[p.metric, [u.tolist() for u in p.units]] for p in self.proposals],
            "savings": list(self.savings),
            "sensitivities": [[s.nats, s.images] for s in self.sensitivities],
            "chosen": self.chosen,
            "glances": self.glances,
        }


def from_plain(plain: Mapping[str, Any]) -> Measured:
    """Return what ``as_plain`` was made of."""
    return Measured(
        losses=torch.tensor(plain["losses"], dtype=torch.float64),
        losses_after=torch.tensor(plain["losses_after"], dtype=torch.float64),
        proposals=[
            Proposal(metric, tuple(torch.tensor(u, dtype=torch.int64) for u in units))
            for metric, units in plain["proposals"]
        ],
        savings=plain["savings"],
        sensitivities=[Sensitivity(nats, images) for nats, images in plain["sensitivities"]],
        chosen=plain["chosen"],
        glances=plain["glances"],
    )
