"""Evaluate the candidates of a state: the metrics score all units, the oracle measures sets."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from slimnet.groups import Branch, merge_plans, open_branches, plan_for
from slimnet.options import SearchOptions
from slimnet.records import Batches, Sensitivity
from slimnet.repair import RemovalErrors, TeacherOutputs, refit
from slimnet.saliency import default_metrics, gather_statistics, read_by, score_units
from slimnet.search.candidates import (
    BRANCH,
    Proposal,
    propose_branches,
    propose_sets,
    propose_widths,
)
from slimnet.search.journal import Journal
from slimnet.search.objective import Objective
from slimnet.search.oracle import Contest, Oracle, output_distances
from slimnet.search.state import State
from slimnet.tasks import mean_loss, require_finite_loss


@dataclass(frozen=True)
class MeasuredCandidates:
    """The candidates of a state with their sensitivities, and the numbers of those that won.

    ``loss`` is the mean loss of the network as it stood, in nats. ``best`` has the winner of each
    contest, if its loss is a finite number.
    """

    loss: float
    proposals: Sequence[Proposal]
    sensitivities: Sequence[Sensitivity]
    best: Sequence[int]

    def as_plain(self) -> dict[str, Any]:
        """Return lists and numbers, from which ``from_plain`` makes the same record."""
        return {
            "loss": self.loss,
            "proposals": [[p.metric, [u.tolist() for u in p.units]] for p in self.proposals],
            "sensitivities": [[s.nats, s.images] for s in self.sensitivities],
            "best": list(self.best),
        }


def from_plain(plain: Mapping[str, Any]) -> MeasuredCandidates:
    """Return the record that ``as_plain`` was made of."""
    return MeasuredCandidates(
        loss=plain["loss"],
        proposals=[
            Proposal(metric, tuple(torch.tensor(u, dtype=torch.int64) for u in units))
            for metric, units in plain["proposals"]
        ],
        sensitivities=[Sensitivity(nats, images) for nats, images in plain["sensitivities"]],
        best=plain["best"],
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


REFITTED_LAYERS = 4
"""How many layers behind a candidate's change are refitted, to see how much of its distance a refit
takes back. A guess: in a residual network they are the next two blocks, which take back most."""

REPORTED_AFTER_SECONDS = 10.0
"""A table that takes less is not worth a line."""

CHANNELS_LEFT = 0.7
"""The share that such a refit leaves of the distance that channels of one group add. On ResNet-20
it left 0.60 to 0.90 in nine groups. Of branches it left 0.07 to 0.30, so each one is measured."""

MIN_SHARE_LEFT = 0.02
"""A refit counts as one that leaves at least this share. A guess: no removal is free."""


@dataclass(frozen=True)
class Refits:
    """Small refits, which tell how much of a candidate's distance a refit takes back.

    ``teacher`` is the original network, with images to fit on; distances are of ``batches``.
    """

    teacher: TeacherOutputs
    batches: Batches

    def shares_left(self, state: State, removals: Sequence[Sequence[Tensor]]) -> list[float]:
        """Return the share of the distance that is left after a refit; no state is changed.

        It is the distance from the original's outputs that each of the removals adds, and 1 where
        one adds none.
        """
        with torch.no_grad():
            wanted = [state.task.outputs(self.teacher.original, batch) for batch in self.batches]
        before, shares = self._distance(state.model, wanted), []
        for units in removals:
            slim, share = state.slim_without(units), 1.0
            added = self._distance(slim, wanted) - before
            if 0 < added < math.inf:
                plan = merge_plans(state.plan, plan_for(state.groups, units, original=True))
                refit(self.teacher, slim, plan, state.plan, REFITTED_LAYERS)
                share = (self._distance(slim, wanted) - before) / added
            finite = math.isfinite(share)
            shares.append(min(1.0, max(MIN_SHARE_LEFT, share)) if finite else 1.0)
        return shares

    @torch.no_grad()
    def _distance(self, network: nn.Module, wanted: Sequence[Sequence[Tensor]]) -> float:
        task, pairs = self.teacher.task, zip(self.batches, wanted, strict=True)
        found = [output_distances(task, network, batch, aim) for batch, aim in pairs]
        return float(torch.cat(found).mean())


@dataclass
class CandidateEvaluator:
    """Measures the candidates of states; the metrics score units on ``images``.

    The widths of groups and branches are measured by what the oracle finds; with ``refits``, by
    what a refit leaves of it.
    """

    objective: Objective
    oracle: Oracle
    images: Batches
    options: SearchOptions
    journal: Journal
    branches: Sequence[Branch] = ()
    refits: Refits | None = None
    progress: Callable[[str], None] | None = None
    _errors: RemovalErrors | None = None
    _rounds: int = 0
    _branch_nats: dict[frozenset[str], float] = field(default_factory=dict)

    def measure_sets(self, state: State, channels: int) -> MeasuredCandidates:
        """Measure sets of units of all groups, in one contest; see ``propose_sets``."""
        return self._journalled(lambda: self._measure_sets(state, channels))

    def measure_widths(self, state: State, max_nats: float) -> MeasuredCandidates:
        """Measure the sets of each group for each width, in a contest each, and every branch.

        A group's next lower width is measured if this one costs no more than ``max_nats``, by the
        better half of the metrics; a branch, if it did not cost more the last time.
        """
        self._rounds += 1
        measured = self._journalled(lambda: self._measure_widths(state, max_nats))
        for proposal, found in zip(measured.proposals, measured.sensitivities, strict=True):
            if proposal.metric == BRANCH:
                self._branch_nats[_group_names(state, proposal)] = found.nats
        return measured

    def mean_loss(self, state: State) -> float:
        """Return the mean loss of a state in nats."""
        return mean_loss(state.running.folded_model, self.images, state.task)

    def _journalled(self, measure: Callable[[], MeasuredCandidates]) -> MeasuredCandidates:
        return from_plain(self.journal.replay_or_run("oracle", lambda: measure().as_plain()))

    def _measure_sets(self, state: State, channels: int) -> MeasuredCandidates:
        ranking = self._rank(state)
        proposals = propose_sets(
            state.groups,
            ranking.scores,
            candidates=self.options.oracle_k,
            channels=channels,
            allowed=self.objective.allowed,
        )
        contests = [proposals] if proposals else []
        savings = [self.objective.savings(state, one) for one in contests]
        found = self.oracle.measure(state, contests, ranking.losses, savings)
        return _joined(ranking, list(zip(contests, found, strict=True)))

    def _measure_widths(self, state: State, max_nats: float) -> MeasuredCandidates:
        if not state.groups:  # all of them went with their branches
            return MeasuredCandidates(self.mean_loss(state), (), (), ())
        ranking = self._rank(state)
        levels = propose_widths(
            state.groups, ranking.scores, self.objective.allowed, self.options.oracle_k
        )
        branches = open_branches(state.model, state.groups, self.branches)
        levels += [
            [[branch]]
            for branch in propose_branches(state.groups, branches)
            if self._branch_nats.get(_group_names(state, branch), 0.0) <= max_nats
        ]
        parts: list[tuple[Sequence[Proposal], Contest]] = []
        going = [widths for widths in levels if widths]
        trials, started = sum(len(one) for widths in going for one in widths), time.perf_counter()
        while going:
            contests = [widths[0] for widths in going]
            found = self._after_refits(state, contests, self._compete(state, ranking, contests))
            parts += zip(contests, found, strict=True)
            self._report(sum(len(one) for one, _ in parts), trials, time.perf_counter() - started)
            going = [
                _next_widths(widths, result)
                for widths, result in zip(going, found, strict=True)
                if len(widths) > 1 and result.winner is not None
                and result.sensitivities[result.winner].nats <= max_nats
            ]  # fmt: skip
        return _joined(ranking, parts)

    def _report(self, done: int, trials: int, seconds: float) -> None:
        """Report how far a long table is; of the narrower widths many trials fall away."""
        left = seconds * (trials / done - 1)
        if self.progress is not None and seconds > REPORTED_AFTER_SECONDS and done < trials:
            text = f"round {self._rounds}: {done} of at most {trials} trials are measured"
            self.progress(f"searching, {text}, at most {left:.0f} s are left for them")

    def _after_refits(
        self, state: State, contests: Sequence[Sequence[Proposal]], found: Sequence[Contest]
    ) -> list[Contest]:
        """Return the contests with what refits leave of the distances."""
        if self.refits is None or state.tuned:
            return list(found)
        removals = [one[0].units for one in contests if one[0].metric == BRANCH]
        shares = iter(self.refits.shares_left(state, removals) if removals else ())
        return [
            result.scaled(next(shares) if proposals[0].metric == BRANCH else CHANNELS_LEFT)
            for proposals, result in zip(contests, found, strict=True)
        ]

    def _compete(
        self, state: State, ranking: Ranking, contests: Sequence[Sequence[Proposal]]
    ) -> list[Contest]:
        savings = [self.objective.savings(state, proposals) for proposals in contests]
        return self.oracle.measure(state, contests, ranking.losses, savings)

    def _rank(self, state: State) -> Ranking:
        metrics = self.options.metrics or default_metrics(repaired=bool(state.inverse_grams))
        self._errors = removal_errors_of(state, self._errors)
        return rank(state, self.images, metrics, self._errors)


def _group_names(state: State, proposal: Proposal) -> frozenset[str]:
    """Return the names of the groups that lose units."""
    pairs = zip(state.groups, proposal.units, strict=True)
    return frozenset(group.name for group, units in pairs if len(units))


def _next_widths(widths: list[list[Proposal]], result: Contest) -> list[list[Proposal]]:
    """Return a group's widths after the first one, whose contest had this result.

    Of the next one only the sets of the better half of the metrics are there.
    """
    metrics = {widths[0][number].metric for number in result.better_half}
    chosen = [one for one in widths[1] if one.metric in metrics]
    return [chosen or widths[1], *widths[2:]]


def _joined(
    ranking: Ranking, parts: Sequence[tuple[Sequence[Proposal], Contest]]
) -> MeasuredCandidates:
    """Return the candidates of all contests in one list."""
    proposals: list[Proposal] = []
    sensitivities: list[Sensitivity] = []
    best = []
    for own, contest in parts:
        if contest.winner is not None:
            best.append(len(proposals) + contest.winner)
        proposals += own
        sensitivities += contest.sensitivities
    return MeasuredCandidates(float(ranking.losses.mean()), proposals, sensitivities, best)
