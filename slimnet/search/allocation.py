"""Allocation: which of the measured choices go together, to save a share of the cost.

Choices of one group exclude each other, and the distances that the others add to the outputs add
up: a knapsack with multiple choice. What a layer costs depends on its inputs and outputs, which
belong to different groups, so savings do not add up. Coordinate descent on cost + multiplier x
distance finds the combination for each multiplier (Everett 1963, Generalized Lagrange Multiplier
Method), and bisection the multiplier.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from slimnet.search.candidates import Proposal
from slimnet.search.latency_table import Width
from slimnet.search.objective import Objective, cost_per_saving
from slimnet.search.state import State

BISECTIONS = 30
"""Of the multiplier, over nine decades: then it is known to 2e-8 of its logarithm."""

MULTIPLIER_DECADES = 9
MAX_RATIO = 4.0
"""A guess: the next round, with measurements of its own, can do better than that."""

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


@dataclass
class Selection:
    """Some of the choices, and the cost of the network without them, kept up to date.

    ``effects[i]`` maps layers to the inputs and outputs that go with choice i.
    """

    choices: Sequence[Choice]
    effects: Sequence[Mapping[str, Width]]
    cost_of: Callable[[str, int, int], float]
    chosen: set[int] = field(default_factory=set)
    saved: float = 0.0
    nats: float = 0.0

    def __post_init__(self) -> None:
        self._of_group: dict[int, int] = {}
        self._gone: dict[str, tuple[int, int]] = {}
        for number in sorted(self.chosen):
            self._of_group |= dict.fromkeys(self.choices[number].groups, number)
        for number in self.chosen:
            for layer, less in self.effects[number].items():
                inputs, outputs = self._gone.get(layer, (0, 0))
                self._gone[layer] = inputs + less.inputs, outputs + less.outputs

    def copy(self) -> Selection:
        """Return a selection of the same choices."""
        return Selection(
            self.choices, self.effects, self.cost_of, set(self.chosen), self.saved, self.nats
        )

    def move(self, number: int) -> tuple[list[int], list[int], float, float]:
        """Return what leaves and enters if a choice is toggled, and what that saves and costs.

        A choice that enters takes the place of all others of its groups.
        """
        if number in self.chosen:
            out, into = [number], []
        else:
            groups = self.choices[number].groups
            out = sorted({self._of_group[g] for g in groups if g in self._of_group})
            into = [number]
        changes: dict[str, tuple[int, int]] = {}
        for sign, numbers in ((-1, out), (1, into)):
            for one in numbers:
                for layer, less in self.effects[one].items():
                    inputs, outputs = changes.get(layer, (0, 0))
                    changes[layer] = inputs + sign * less.inputs, outputs + sign * less.outputs
        saved = 0.0
        for layer, (inputs, outputs) in changes.items():
            before = self._gone.get(layer, (0, 0))
            saved += self.cost_of(layer, *before)
            saved -= self.cost_of(layer, before[0] + inputs, before[1] + outputs)
        nats = sum(self.choices[i].nats for i in into) - sum(self.choices[i].nats for i in out)
        return out, into, saved, nats

    def make(self, move: tuple[list[int], list[int], float, float]) -> None:
        """Change the selection by a move."""
        out, into, saved, nats = move
        for sign, numbers in ((-1, out), (1, into)):
            for one in numbers:
                for layer, less in self.effects[one].items():
                    inputs, outputs = self._gone.get(layer, (0, 0))
                    self._gone[layer] = inputs + sign * less.inputs, outputs + sign * less.outputs
        for one in out:
            self.chosen.remove(one)
            for group in self.choices[one].groups:
                del self._of_group[group]
        for one in into:
            self.chosen.add(one)
            self._of_group |= dict.fromkeys(self.choices[one].groups, one)
        self.saved += saved
        self.nats += nats

    def descend(self, multiplier: float) -> None:
        """Change the selection to a local minimum of cost + multiplier x nats."""
        scale = TIE * self.cost_of("", 0, 0)
        for _ in range(MAX_SWEEPS):
            moved = False
            for number in range(len(self.choices)):
                move = self.move(number)
                if move[2] - multiplier * move[3] > scale:
                    self.make(move)
                    moved = True
            if not moved:
                return

    def fill(self, max_saved: float) -> None:
        """Change the selection: add what saves most for its nats, as long as it fits.

        What costs MAX_RATIO times as much for its saving as the rest stays out.
        """
        scale = TIE * self.cost_of("", 0, 0)
        while True:
            moves = [self.move(n) for n in range(len(self.choices)) if n not in self.chosen]
            room = max_saved * (1 + TIE) - self.saved
            fitting = [move for move in moves if scale < move[2] <= room]
            if not fitting:
                return
            best = min(fitting, key=lambda move: cost_per_saving(move[3], move[2]))
            dear = best[3] / best[2] > MAX_RATIO * max(self.nats, 0.0) / max(self.saved, scale)
            if self.chosen and dear:
                return
            self.make(best)


def select(
    choices: Sequence[Choice],
    effects: Sequence[Mapping[str, Width]],
    cost_of: Callable[[str, int, int], float],
    max_saved: float,
) -> Allocation:
    """Return a combination of few nats for what it saves, which is at most ``max_saved``.

    It is empty if every choice saves more.

    Args:
        choices: the nats of each, a finite number, must have been measured on the same network.
        effects: by choice, the inputs and outputs that each layer loses.
        cost_of: returns the cost of a layer without that many inputs and outputs. For the layer ""
            it is that of the whole network as it stands.
        max_saved: in the unit of the cost.
    """
    best = Selection(choices, effects, cost_of)
    ratios = []
    for number, choice in enumerate(choices):
        saved = best.move(number)[2]
        if saved > 0 and choice.nats > 0:
            ratios.append(saved / choice.nats)
    high = 2 * max(ratios, default=1.0)
    low = high * 10.0**-MULTIPLIER_DECADES
    for _ in range(BISECTIONS):
        middle = math.sqrt(low * high)
        tried = best.copy()
        tried.descend(middle)
        if tried.saved <= max_saved * (1 + TIE):
            best, high = tried, middle
        else:
            low = middle
    best.fill(max_saved)
    return Allocation(tuple(choices[n] for n in sorted(best.chosen)), best.saved, best.nats)


def allocate(
    state: State, choices: Sequence[Choice], objective: Objective, max_saved: float
) -> Allocation:
    """Return a combination of few nats that saves at most ``max_saved``; see ``select``."""
    widths = objective.widths(state)
    effects = [objective.removed(state, choice.proposal, widths) for choice in choices]
    known: dict[tuple[str, int, int], float] = {}

    def cost_of(layer: str, inputs: int, outputs: int) -> float:
        key = layer, inputs, outputs
        if key not in known:
            if layer:
                width = widths[layer].without(Width(inputs, outputs))
                known[key] = objective.cost_of(layer, width)
            else:
                known[key] = sum(objective.cost_of(*one) for one in widths.items())
        return known[key]

    return select(choices, effects, cost_of, max_saved)
