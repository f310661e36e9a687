"""Allocation: which of the measured choices go together, to save most for an allowed distance.

Choices of one group exclude each other, and the distances that the others add to the outputs add
up: a knapsack with multiple choice. What a layer costs depends on its inputs and outputs, which
belong to different groups, so savings do not add up. Coordinate descent on cost + multiplier x
distance finds the combination for each multiplier (Everett 1963, Generalized Lagrange Multiplier
Method), and bisection the multiplier.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from slimnet.search.candidates import Proposal
from slimnet.search.latency_table import Width
from slimnet.search.objective import cost_per_saving

BISECTIONS = 24
"""Of the multiplier, over as many decades as the choices' ratios span. A guess."""

MAX_RATIO = 4.0
"""A choice that is added may cost at most this many times as much for its saving as the others
together. A guess: the next round, with measurements of its own, can do better than that."""

MAX_SWEEPS = 20
"""Over all choices for one multiplier. A guess: it mostly ends after three."""

TIE = 1e-9
"""A share of the cost: smaller differences are rounding, and count as none."""


@dataclass(frozen=True)
class Choice:
    """A candidate as the oracle measured it: what its removal adds to the loss, or to the distance.

    ``number`` is its place among all candidates of the round.
    """

    proposal: Proposal
    nats: float
    number: int

    @property
    def groups(self) -> frozenset[int]:
        """The numbers of the groups that lose units."""
        return frozenset(i for i, units in enumerate(self.proposal.units) if len(units))


@dataclass(frozen=True)
class Allocation:
    """Choices that go together: what they save, in the objective's unit, and their summed nats."""

    choices: tuple[Choice, ...]
    saved: float
    nats: float


@dataclass(frozen=True)
class Move:
    """A change of a selection: the choices that leave and enter, and what that brings.

    ``gone`` holds, for each layer that changes, the inputs and outputs gone after it.
    """

    leave: Sequence[int]
    enter: Sequence[int]
    gone: Mapping[str, tuple[int, int]]
    saved: float
    nats: float


@dataclass
class Selection:
    """A combination of the choices, and what it saves; every move changes both.

    ``effects[i]`` maps layers to the inputs and outputs that go with choice i.
    """

    choices: Sequence[Choice]
    effects: Sequence[Mapping[str, Width]]
    cost_of: Callable[[str, int, int], float]
    chosen: set[int] = field(default_factory=set)
    saved: float = 0.0
    nats: float = 0.0
    _of_group: dict[int, int] = field(default_factory=dict)
    _gone: dict[str, tuple[int, int]] = field(default_factory=dict)

    def copy(self) -> Selection:
        """Return a selection of the same choices."""
        return replace(
            self,
            chosen=set(self.chosen),
            _of_group=dict(self._of_group),
            _gone=dict(self._gone),
        )

    def move(self, number: int) -> Move:
        """Return the change that takes a choice in, or out if it is in.

        A choice that enters takes the place of all others of its groups.
        """
        if number in self.chosen:
            leave, enter = [number], []
        else:
            groups = self.choices[number].groups
            leave = sorted({self._of_group[g] for g in groups if g in self._of_group})
            enter = [number]
        gone: dict[str, tuple[int, int]] = {}
        for sign, numbers in ((-1, leave), (1, enter)):
            for one in numbers:
                for layer, less in self.effects[one].items():
                    inputs, outputs = gone.get(layer, self._gone.get(layer, (0, 0)))
                    gone[layer] = inputs + sign * less.inputs, outputs + sign * less.outputs
        saved = 0.0
        for layer, after in gone.items():
            saved += self.cost_of(layer, *self._gone.get(layer, (0, 0)))
            saved -= self.cost_of(layer, *after)
        nats = sum(self.choices[i].nats for i in enter) - sum(self.choices[i].nats for i in leave)
        return Move(leave, enter, gone, saved, nats)

    def make(self, move: Move) -> None:
        """Change the selection by a move."""
        self._gone |= move.gone
        for one in move.leave:
            self.chosen.remove(one)
            for group in self.choices[one].groups:
                del self._of_group[group]
        for one in move.enter:
            self.chosen.add(one)
            self._of_group |= dict.fromkeys(self.choices[one].groups, one)
        self.saved += move.saved
        self.nats += move.nats

    def descend(self, multiplier: float) -> None:
        """Change the selection to a local minimum of cost + multiplier x nats."""
        scale = TIE * self.cost_of("", 0, 0)
        for _ in range(MAX_SWEEPS):
            moved = False
            for number in range(len(self.choices)):
                move = self.move(number)
                if move.saved - multiplier * move.nats > scale:
                    self.make(move)
                    moved = True
            if not moved:
                return

    def fill(self, max_nats: float) -> None:
        """Change the selection: add what saves most for its nats, as long as that is allowed.

        What costs MAX_RATIO times as much for its saving as the rest stays out.
        """
        scale = TIE * self.cost_of("", 0, 0)
        while True:
            moves = [self.move(n) for n in range(len(self.choices)) if n not in self.chosen]
            room = max_nats - self.nats
            fitting = [move for move in moves if move.saved > scale and move.nats <= room]
            if not fitting:
                return
            best = min(fitting, key=lambda move: cost_per_saving(move.nats, move.saved))
            dear = best.nats / best.saved > MAX_RATIO * max(self.nats, 0.0) / max(self.saved, scale)
            if self.chosen and dear:
                return
            self.make(best)


def select(
    choices: Sequence[Choice],
    effects: Sequence[Mapping[str, Width]],
    cost_of: Callable[[str, int, int], float],
    max_nats: float,
) -> Allocation:
    """Return the combination that saves most for at most ``max_nats``; empty if nothing fits.

    Args:
        choices: the nats of each, a finite number, must have been measured on the same network.
        effects: by choice, the inputs and outputs that each layer loses.
        cost_of: returns the cost of a layer without that many inputs and outputs. For the layer ""
            it is that of the whole network as it stands.
        max_nats: of all choices together.
    """
    best = Selection(choices, effects, cost_of)
    ratios = []
    for number, choice in enumerate(choices):
        saved = best.move(number).saved
        if saved > 0 and choice.nats > 0:
            ratios.append(saved / choice.nats)
    high = 2 * max(ratios, default=1.0)
    low = min(ratios, default=1.0) / 2
    for _ in range(BISECTIONS):
        middle = math.sqrt(low * high)
        tried = best.copy()
        tried.descend(middle)
        if tried.nats <= max_nats:
            best, high = tried, middle
        else:
            low = middle
    best.fill(max_nats)
    return Allocation(tuple(choices[n] for n in sorted(best.chosen)), best.saved, best.nats)
