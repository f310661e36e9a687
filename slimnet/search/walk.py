"""The walk from the whole network to the last one within the budget, step by step."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

from torch import nn

from slimnet.groups import Group
from slimnet.measure import count_conv_weights, count_parameters
from slimnet.records import Batches, Candidate, Drop, Sensitivity, Step
from slimnet.saliency import default_metrics
from slimnet.search.objective import Objective
from slimnet.search.oracle import Oracle
from slimnet.search.proposals import Proposal
from slimnet.search.recovery import Recovery
from slimnet.search.state import Ranking, State, rank
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
    kept_steps: int = 0
    ended: str = ""
    steps: list[Step] = field(default_factory=list)
    finished_by: list[str] = field(default_factory=list)

    def run(self) -> None:
        """Walk until nothing more fits the budget, and on from there while recovery gains."""
        for _ in range(1 + MOST_RESUMPTIONS):
            before = self.kept_steps
            self._walk()
            if self.kept_steps == before or not self._finish():
                break

    def _walk(self) -> None:
        """Go from the state kept, step by step, until the budget ends it."""
        state, ranking, misses, self.ended = self.kept, None, 0, ""
        metrics = self.settings.metrics or default_metrics(repaired=bool(state.moments))
        self.oracle.forget()
        while not self.ended:
            ranking = ranking or rank(state, self.images, metrics)
            taken = self._take_step(state, ranking)
            if taken is None:
                self.ended = self._over_budget() if misses else self.objective.proposer.ended
                break
            step, following = taken
            self.steps.append(step)
            self.progress(step)
            if step.taken_back:
                continue
            state, ranking = following, None
            self.oracle.forget()
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

    def _take_step(self, state: State, ranking: Ranking) -> tuple[Step, State] | None:
        """Return the best step from a state and where it leads; None if nothing can go."""
        started, number = time.perf_counter(), len(self.steps) + 1
        proposer = self.objective.proposer
        proposals = proposer.propose(state.groups, ranking.scores)
        savings = self.objective.savings(state, proposals)
        measured, chosen = self.oracle.measure(state, proposals, ranking.losses, savings)
        if chosen is None:
            return None
        self.objective.learn(state, proposals, savings, [m.nats for m in measured])
        following = state.without(proposals[chosen].units)
        drop = self.recovery.measure_drop(following)
        following, drop, recovered_by = self.recovery.after_step(following, drop, number)
        within = drop.upper_points <= self.settings.max_drop
        return Step(
            number=number,
            candidates=_candidates(state.groups, proposals, measured),
            chosen=chosen,
            channels_removed=sum(len(units) for units in proposals[chosen].units),
            conv_weights_removed_percent=self._removed(following.model, count_conv_weights),
            parameters_removed_percent=self._removed(following.model, count_parameters),
            calibration_loss=ranking.loss + measured[chosen].nats,
            drop=drop,
            within_budget=within,
            taken_back=not within and proposer.narrow(state.groups, proposals[chosen]),
            seconds=time.perf_counter() - started,
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


def _candidates(
    groups: Sequence[Group], proposals: Sequence[Proposal], measured: Sequence[Sensitivity]
) -> tuple[Candidate, ...]:
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
        for proposal, sensitivity in zip(proposals, measured, strict=True)
    )
