"""What the metrics propose of one state after the other, and what the oracle says of it."""

from __future__ import annotations

import copy
import weakref
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

from torch import Tensor

from slimnet.measure import mean_loss
from slimnet.search.journal import Journal
from slimnet.search.measured import Measured, from_plain
from slimnet.search.objective import Objective
from slimnet.search.oracle import Oracle
from slimnet.search.proposing import Proposed, Proposing
from slimnet.search.ranking import Propose
from slimnet.search.state import State


@dataclass
class Measuring:
    """Measures states on the oracle's images; what it knows of one goes when another comes."""

    objective: Objective
    oracle: Oracle
    proposing: Proposing
    journal: Journal
    _state: Callable[[], State | None] = field(default=lambda: None)
    _losses: Tensor | None = None
    _losses_after: Tensor | None = None

    def measure(self, state: State) -> Measured:
        """Return what the oracle says of what the metrics propose, or what the journal holds."""
        if self._state() is not state:
            self._begin(state)
        live = False

        def measure_now() -> dict[str, Any]:
            nonlocal live
            live = True
            return self._measure(state).as_plain()

        found = from_plain(self.journal.once("oracle", measure_now))
        if not live:
            alone = all(proposal.count == 1 for proposal in found.proposals)
            # a copy, since steps may be smaller by the time that it is asked
            propose = partial(copy.deepcopy(self.objective.proposer).propose, state.groups)
            self.proposing.catch_up(state, propose, found.glances, alone=alone)
        self._losses, self._losses_after = found.losses, found.losses_after
        self.oracle.remember(found.proposals, found.sensitivities)
        return found

    def mean_loss(self, state: State) -> float:
        """Return the mean loss of a state in nats."""
        return mean_loss(state.running, self.proposing.images, state.task)

    def free_memory(self) -> None:
        """Let go of what takes memory, where a state comes that has little in common with this."""
        self.proposing.free_memory()

    def _begin(self, state: State) -> None:
        self._state = weakref.ref(state)
        self.proposing.begin(self._losses_after)
        self._losses = None
        self.oracle.begin(state)

    def _measure(self, state: State) -> Measured:
        propose = self._propose(state)
        proposed = self.proposing.propose(state, propose)
        # of one state the oracle must see the images in one order
        losses = proposed.losses if self._losses is None else self._losses
        glances = proposed.glances
        while (found := self._race(state, proposed, losses)) is None:
            proposed = self.proposing.look_again(state, propose)
            more = proposed.glances
            glances = None if glances is None or more is None else glances + more
        self.oracle.recording.free_memory()
        return replace(found, glances=glances)

    def _race(self, state: State, proposed: Proposed, losses: Tensor) -> Measured | None:
        """Return what the oracle says, None where what wins might not have been proposed."""
        proposals = [*proposed.proposals, *proposed.others]
        savings = self.objective.savings(state, proposals)
        measured, chosen = self.oracle.measure(state, proposals, losses, savings)
        if chosen is not None and proposals[chosen].key in proposed.in_doubt:
            return None
        after = losses
        if chosen is not None:
            after = self.oracle.losses_without(proposals[chosen], losses)
        many = len(proposed.proposals)
        return Measured(
            losses=losses,
            losses_after=after,
            proposals=proposals[:many],
            savings=savings[:many],
            sensitivities=measured[:many],
            chosen=chosen,
            glances=proposed.glances,
        )

    def _propose(self, state: State) -> Propose:
        return partial(self.objective.proposer.propose, state.groups)
