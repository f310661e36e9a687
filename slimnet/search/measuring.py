"""What the metrics propose of one state after the other, and what the oracle says of it."""

from __future__ import annotations

import weakref
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import partial

from torch import Tensor

from slimnet.measure import mean_loss
from slimnet.records import Batches
from slimnet.recover import RemovalErrors
from slimnet.saliency import default_metrics
from slimnet.search.journal import Journal
from slimnet.search.measured import Measured, from_plain
from slimnet.search.objective import Objective
from slimnet.search.oracle import Oracle
from slimnet.search.ranking import Ranking, errors_of, rank
from slimnet.search.state import State
from slimnet.settings import Settings


@dataclass
class Measuring:
    """Measures states on the oracle's images; what it knows of one goes when another comes."""

    objective: Objective
    oracle: Oracle
    images: Batches
    settings: Settings
    journal: Journal
    _known: Callable[[], State | None] = field(default=lambda: None)
    _ranking: Ranking | None = None
    _losses: Tensor | None = None
    _losses_before: Tensor | None = None
    _errors: RemovalErrors | None = None

    def measure(self, state: State) -> Measured:
        """Return what the oracle says of what the metrics propose, or what the journal holds."""
        if self._known() is not state:
            self._begin(state)
        found = from_plain(self.journal.once("oracle", lambda: self._measure(state).as_plain()))
        self._losses = found.losses
        self.oracle.remember(found.proposals, found.sensitivities)
        return found

    def mean_loss(self, state: State) -> float:
        """Return the mean loss of a state in nats."""
        return mean_loss(state.running, self.images, state.task)

    def free_memory(self) -> None:
        """Let go of what takes memory, where a state comes that has little in common with this."""
        self._errors = None

    def _begin(self, state: State) -> None:
        self._known = weakref.ref(state)
        self._ranking, self._losses_before = None, self._losses
        self.oracle.forget()

    def _measure(self, state: State) -> Measured:
        metrics = self.settings.metrics or default_metrics(repaired=bool(state.moments))
        propose = partial(self.objective.proposer.propose, state.groups)
        ranking = self._ranking
        if ranking is None or not ranking.settled(propose):
            self._errors = errors_of(state, self._errors)
            before = self._losses_before
            again = rank(state, self.images, metrics, before, propose, self._errors)
            # of one state the oracle must see the images in one order
            ranking = again if ranking is None else replace(again, losses=ranking.losses)
        self._ranking = ranking
        proposals = propose(ranking.scores)
        savings = self.objective.savings(state, proposals)
        measured, chosen = self.oracle.measure(state, proposals, ranking.losses, savings)
        return Measured(ranking.losses, proposals, savings, measured, chosen)
