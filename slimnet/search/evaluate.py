"""Evaluate the candidates of a step: the metrics score all units, the oracle measures the best."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from slimnet.options import SaliencyOptions
from slimnet.records import Batches, Sensitivity
from slimnet.repair import RemovalErrors
from slimnet.saliency import default_metrics, gather_statistics, read_by, score_units
from slimnet.search.candidates import Proposal
from slimnet.search.journal import Journal
from slimnet.search.objective import Objective
from slimnet.search.oracle import Oracle
from slimnet.search.state import State
from slimnet.tasks import mean_loss, require_finite_loss


@dataclass(frozen=True)
class MeasuredCandidates:
    """The candidates of a step with their savings and sensitivities, and the best one's number.

    ``loss`` is the mean loss of the network as it stood, in nats. ``savings`` are in the
    objective's unit. ``chosen`` is None where there are no candidates, or no finite losses.
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


def from_plain(plain: Mapping[str, Any]) -> MeasuredCandidates:
    """Return the record that ``as_plain`` was made of."""
    return MeasuredCandidates(
        loss=plain["loss"],
        proposals=[
            Proposal(metric, tuple(torch.tensor(u, dtype=torch.int64) for u in units))
            for metric, units in plain["proposals"]
        ],
        savings=plain["savings"],
        sensitivities=[Sensitivity(nats, images) for nats, images in plain["sensitivities"]],
        chosen=plain["chosen"],
    )


@dataclass(frozen=True)
class Ranking:
    """Scores of all units by metric, (units,) each, and the losses of images in nats, (images,)."""

    scores: Mapping[str, Tensor]
    losses: Tensor


def rank(
    state: State, batches: Batches, metrics: Sequence[str], errors: RemovalErrors | None = None
) -> Ranking:
    """Score all units of a state by each metric, in one pass; the state is not changed.

    Args:
        state: the network as it stands.
        batches: the oracle's images.
        metrics: their names.
        errors: the state's removal errors, if there are any yet.

    Raises:
        InputError: the loss is not a finite number.
    """
    # a layer behind a concatenation can be of several groups, and is watched once
    gates = list(dict.fromkeys(gate for group in state.groups for gate in group.gates))
    statistics, losses = gather_statistics(
        state.running.folded_model,
        gates,
        batches,
        read_by(metrics),
        state.task,
        weights_of=state.model,
    )
    require_finite_loss(float(losses.mean()), "calibration")
    scores = score_units(
        state.groups,
        statistics,
        metrics,
        model=state.model,
        removal_errors=errors or removal_errors_of(state),
    )
    return Ranking(scores, losses)


def removal_errors_of(state: State, before: RemovalErrors | None = None) -> RemovalErrors:
    """Return the removal errors of a state, those of an earlier one where nothing has changed."""
    return RemovalErrors(state.model, state.groups, state.inverse_grams, before)


@dataclass(frozen=True)
class _Known:
    """The measurements of one state.

    ``changes`` holds, by candidate and batch, how much the losses of the images change.
    """

    state: State
    errors: RemovalErrors
    ranking: Ranking
    changes: dict[Hashable, list[Tensor]] = field(default_factory=dict)


@dataclass
class StepEvaluator:
    """Measures the candidates of states on the oracle's images.

    A state is often measured again, with smaller candidates or fewer groups. The measurements of
    the last state are therefore cached, which changes no result.
    """

    objective: Objective
    oracle: Oracle
    images: Batches
    options: SaliencyOptions
    journal: Journal
    _known: _Known | None = None

    def measure(self, state: State) -> MeasuredCandidates:
        """Return the candidates of a state, measured now or read from the journal."""
        plain = self.journal.replay_or_run("oracle", lambda: self._measure(state).as_plain())
        return from_plain(plain)

    def mean_loss(self, state: State) -> float:
        """Return the mean loss of a state in nats."""
        return mean_loss(state.running.folded_model, self.images, state.task)

    def free_memory(self) -> None:
        """Drop the cached measurements; they are made again when they are asked for."""
        self._known = None

    def _measure(self, state: State) -> MeasuredCandidates:
        known = self._known_of(state)
        proposals = self.objective.proposer.propose(state.groups, known.ranking.scores)
        savings = self.objective.savings(state, proposals)
        sensitivities, chosen = self.oracle.measure(
            state, proposals, known.ranking.losses, savings, known.changes
        )
        loss = float(known.ranking.losses.mean())
        return MeasuredCandidates(loss, proposals, savings, sensitivities, chosen)

    def _known_of(self, state: State) -> _Known:
        """Return the cached measurements of a state, or make them."""
        if self._known is None or self._known.state is not state:
            before = self._known.errors if self._known else None
            self._known = None  # frees memory for the measurements that come, which are as large
            metrics = self.options.metrics or default_metrics(repaired=bool(state.inverse_grams))
            errors = removal_errors_of(state, before)
            ranking = rank(state, self.images, metrics, errors)
            self._known = _Known(state, errors, ranking)
        return self._known
