"""The walk from the whole network to the last one within the budget, step by step."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial

from torch import Tensor, nn

from slimnet.groups import Group
from slimnet.measure import count_conv_weights, count_parameters
from slimnet.records import Batches, Candidate, Drop, Step
from slimnet.saliency import default_metrics
from slimnet.search.journal import STEP, Journal
from slimnet.search.measured import Measured, from_plain
from slimnet.search.objective import Objective
from slimnet.search.oracle import Oracle
from slimnet.search.ranking import Ranking, rank
from slimnet.search.recovery import Recovery
from slimnet.search.state import State
from slimnet.settings import Settings

PATIENCE = 8
MOST_RESUMPTIONS = 3


@dataclass
class Walk:
    """One search under way: the steps so far, and the last state within the budget.

    ``kept_drop`` is that state's, and ``kept_steps`` the number of the step that led there.
    """

    original: nn.Module
    objective: Objective
    oracle: Oracle
    recovery: Recovery
    images: Batches
    settings: Settings
    progress: Callable[[Step], None]
    kept: State
    kept_drop: Drop
    journal: Journal
    kept_steps: int = 0
    ended: str = ""
    steps: list[Step] = field(default_factory=list)
    finished_by: list[str] = field(default_factory=list)
    _ranking: Ranking | None = None
    _losses: Tensor | None = None

    def run(self) -> None:
        """Walk until nothing more fits the budget, and on from there while recovery gains."""
        for _ in range(1 + MOST_RESUMPTIONS):
            before = self.kept_steps
            self._walk()
            if self.kept_steps == before or not self._finish():
                break

    def _walk(self) -> None:
        """Go from the state kept, step by step, until the budget ends it."""
        state, misses, self.ended = self.kept, 0, ""
        self._forget()
        while not self.ended:
            taken = self._take_step(state)
            if taken is None:
                self.ended = self._over_budget() if misses else self.objective.proposer.ended
                break
            step, following = taken
            self.steps.append(step)
            self.progress(step)
            if step.taken_back:
                continue
            state = following
            self._forget()
            self.objective.refresh(state.model)
            if step.within_budget:
                self.kept, self.kept_drop, self.kept_steps = state, step.drop, step.number
                misses, self.finished_by = 0, []
            elif (misses := misses + 1) > PATIENCE:
                self.ended = self._over_budget()

    def _finish(self) -> bool:
        """Recover the state kept; tell whether that gained accuracy, so that more may go.

        The steps beyond it then count as taken back.
        """
        points = self.kept_drop.upper_points
        self.kept, self.kept_drop, self.finished_by = self.recovery.at_the_end(
            self.kept, self.kept_drop, self.kept_steps
        )
        gained = self.kept_drop.upper_points < points
        if gained:
            beyond = self.steps[self.kept_steps :]
            self.steps[self.kept_steps :] = [replace(step, taken_back=True) for step in beyond]
            self.objective.proposer.reopen()
        return gained

    def _forget(self) -> None:
        """Forget what was measured: the network has changed."""
        self._ranking = None
        self.oracle.forget()

    def _measure(self, state: State) -> Measured:
        """Return what the oracle says of what the metrics propose."""
        metrics = self.settings.metrics or default_metrics(repaired=bool(state.moments))
        propose = partial(self.objective.proposer.propose, state.groups)
        ranking = self._ranking
        if ranking is None or not ranking.settled(propose):
            again = rank(state, self.images, metrics, self._losses, propose)
            # of one state the oracle must see the images in one order
            ranking = again if ranking is None else replace(again, losses=ranking.losses)
        self._ranking, self._losses = ranking, ranking.losses
        proposals = propose(ranking.scores)
        savings = self.objective.savings(state, proposals)
        measured, chosen = self.oracle.measure(state, proposals, ranking.losses, savings)
        return Measured(ranking.loss, proposals, savings, measured, chosen)

    def _take_step(self, state: State) -> tuple[Step, State] | None:
        """Return the best step from a state and where it leads; None if nothing can go."""
        started, number = time.perf_counter(), len(self.steps) + 1
        found = from_plain(self.journal.once("oracle", lambda: self._measure(state).as_plain()))
        self.oracle.remember(found.proposals, found.sensitivities)
        if found.chosen is None:
            return None
        best, nats = found.proposals[found.chosen], [s.nats for s in found.sensitivities]
        self.objective.learn(state, found.proposals, found.savings, nats)
        following = state.without(best.units)
        drop = self.recovery.measure_drop(following)
        following, drop, recovered_by = self.recovery.after_step(
            following, drop, number, last=self.objective.proposer.closing
        )
        within = drop.upper_points <= self.settings.max_drop
        smaller = not within and self.objective.proposer.narrow(state.groups, best)
        return Step(
            number=number,
            candidates=_candidates(state.groups, found),
            chosen=found.chosen,
            channels_removed=sum(len(units) for units in best.units),
            conv_weights_removed_percent=self._removed(following.model, count_conv_weights),
            parameters_removed_percent=self._removed(following.model, count_parameters),
            calibration_loss=found.loss + nats[found.chosen],
            drop=drop,
            within_budget=within,
            taken_back=smaller,
            seconds=self.journal.once(STEP, lambda: time.perf_counter() - started),
            recovered_by=tuple(recovered_by),
        ), following

    def _removed(self, slim: nn.Module, count: Callable[[nn.Module], int]) -> float:
        whole = count(self.original)
        return 100 * (1 - count(slim) / whole) if whole else 0.0

    def _over_budget(self) -> str:
        """Say why the search ended beyond the budget, from the step after the last one kept."""
        further = [step for step in self.steps[self.kept_steps :] if not step.taken_back]
        drop = further[0].drop
        bound = "" if drop.confidence == 0.5 else f" (upper bound {drop.upper_points:.2f})"
        text = f"the next step would cost {drop.points:.2f} points{bound}"
        if len(further) > 1:
            text += f", and none of the {len(further) - 1} after it came back within the budget"
        return text


def _candidates(groups: Sequence[Group], found: Measured) -> tuple[Candidate, ...]:
    return tuple(
        Candidate(
            metric=proposal.metric,
            channels={
                group.name: tuple(group.original_units[units].tolist())
                for group, units in zip(groups, proposal.units, strict=True)
                if len(units)
            },
            sensitivity=sensitivity.nats,
            images=sensitivity.images,
        )
        for proposal, sensitivity in zip(found.proposals, found.sensitivities, strict=True)
    )
