"""Backward elimination: units of a group go one after the other, each time the cheapest left.

Units that are nearly copies of one another cost next to nothing alone, and much together. Here each
unit is priced after the repair for all that went before it, so that one of the copies stays. It is
the greedy use of the optimal brain surgeon's block step (Hassibi and Stork 1993; for single weights
Frantar and Alistarh 2022, Optimal Brain Compression).
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from slimnet.recover.reconstruction import Consumer

MOST_ROUNDS = 64
"""So often at most are all units that are left priced anew."""

SHORTLIST = 4
"""Of so many times the units that go in a round the cheapest are looked at one by one."""


def joint_errors(consumers: Sequence[Consumer], units: int) -> Tensor:
    """Return the error of each unit together with all that go before it, (units,) float64.

    The consumers are changed: all units are gone from them. The error is that of
    ``reconstruction_errors``, summed over the consumers.
    """
    left, errors = torch.arange(units), torch.zeros(units, dtype=torch.float64)
    together, in_a_round = 0.0, -(-units // MOST_ROUNDS)
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
