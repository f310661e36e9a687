"""The candidates of one state after the other: proposed by the metrics, measured by the oracle."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from slimnet.measure import mean_loss
from slimnet.records import Batches
from slimnet.recover import RemovalErrors
from slimnet.saliency import default_metrics
from slimnet.search.journal import Journal
from slimnet.search.measured import Measured, from_plain
from slimnet.search.objective import Objective
from slimnet.search.oracle import Oracle
from slimnet.search.ranking import Ranking, rank, removal_errors_of
from slimnet.search.state import State
from slimnet.settings import Settings


@dataclass(frozen=True)
class _Known:
    """What was measured of one state: its ranking, and loss changes by candidate and batch."""

    state: State
    ranking: Ranking
    changes: dict[Hashable, list[Tensor]] = field(default_factory=dict)


@dataclass
class StepEvaluator:
    """Measures the candidates of states on the oracle's images.

    A state is often measured again, with smaller candidates or fewer groups: what is known of the
    last one is then used again, which changes no result.
    """

    objective: Objective
    oracle: Oracle
    images: Batches
    settings: Settings
    journal: Journal
    _known: _Known | None = None
    _errors: RemovalErrors | None = None

    def measure(self, state: State) -> Measured:
        """Return what the oracle says of what the metrics propose, or what the journal holds."""

        def measure_now() -> dict[str, Any]:
            return self._measure(state).as_plain()

        return from_plain(self.journal.once("oracle", measure_now))

    def mean_loss(self, state: State) -> float:
        """Return the mean loss of a state in nats."""
        return mean_loss(state.running, self.images, state.task)

    def free_memory(self) -> None:
        """Forget what was measured; it is measured again where it is asked for."""
        self._known = self._errors = None

    def _measure(self, state: State) -> Measured:
        if self._known is None or self._known.state is not state:
            self._known = None  # as large as what comes
            self._known = _Known(state, self._rank(state))
        ranking = self._known.ranking
        proposals = self.objective.proposer.propose(state.groups, ranking.scores)
        savings = self.objective.savings(state, proposals)
        sensitivities, chosen = self.oracle.measure(
            state, proposals, ranking.losses, savings, self._known.changes
        )
        return Measured(float(ranking.losses.mean()), proposals, savings, sensitivities, chosen)

    def _rank(self, state: State) -> Ranking:
        self._errors = removal_errors_of(state, self._errors)
        return rank(state, self.images, self._metrics(state), self._errors)

    def _metrics(self, state: State) -> Sequence[str]:
        return self.settings.metrics or default_metrics(repaired=bool(state.moments))
