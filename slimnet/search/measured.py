"""What the oracle found out at one step, as a record and as plain values for the journal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from slimnet.records import Sensitivity
from slimnet.search.proposals import Proposal


@dataclass(frozen=True)
class Measured:
    """The proposals of a step, what each saves and costs, and the number of the best one, if any.

    ``loss`` is the mean of the network as it stood, in nats; ``savings`` are in the objective's
    unit.
    """

    loss: float
    proposals: Sequence[Proposal]
    savings: Sequence[float]
    sensitivities: Sequence[Sensitivity]
    chosen: int | None

    def as_plain(self) -> dict[str, Any]:
        """Return lists and numbers, from which ``from_plain`` makes the same record."""
        return {
            "loss": self.loss,
            "proposals": [[p.metric, [u.tolist() for u in p.units]] for p in self.proposals],
            "savings": list(self.savings),
            "sensitivities": [[s.nats, s.images] for s in self.sensitivities],
            "chosen": self.chosen,
        }


def from_plain(plain: Mapping[str, Any]) -> Measured:
    """Return what ``as_plain`` was made of."""
    return Measured(
        loss=plain["loss"],
        proposals=[
            Proposal(metric, tuple(torch.tensor(u, dtype=torch.int64) for u in units))
            for metric, units in plain["proposals"]
        ],
        savings=plain["savings"],
        sensitivities=[Sensitivity(nats, images) for nats, images in plain["sensitivities"]],
        chosen=plain["chosen"],
    )
