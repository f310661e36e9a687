"""The search: metrics propose, the oracle decides, the budget ends it."""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, field

from torch import nn

from slimnet.groups import Group
from slimnet.measure import (
    Quality,
    count_conv_weights,
    count_parameters,
    measure_quality,
    paired_drop,
)
from slimnet.records import Batches, Candidate, Drop, Split, Splits, Step, Trajectory
from slimnet.search.latency import LayerTimer
from slimnet.search.layout import best_format, lay_out
from slimnet.search.objective import Objective, choose_objective
from slimnet.search.oracle import measure_sensitivities
from slimnet.search.proposals import Proposal
from slimnet.search.state import Ranking, State, first_state, rank
from slimnet.settings import Settings

PATIENCE = 8
RESOLVE_POINTS = 1.5
RESOLVE_EVERY = 8
RESOLVE_IMAGES = 512
Progress = Callable[[Step], None]


def search(
    model: nn.Module,
    groups: Sequence[Group],
    splits: Splits,
    settings: Settings,
    progress: Progress | None = None,
    time_layers: LayerTimer | None = None,
) -> tuple[Trajectory, nn.Module]:
    """Find which channels go within the budget; the model is not changed.

    Each step lets the metrics propose, measures every proposal and removes the one with the
    lowest loss increase for what it saves. A step that breaks the budget is taken back and
    something smaller is tried: sets of channels are halved; blocks become one width each, and a
    group whose next block breaks the budget is left as it is. With single channels the search
    looks a few steps further, since accuracy on a finite split is noisy, and ends at the last
    step within the budget.

    Args:
        model: the trained network, in eval mode.
        groups: from ``find_groups``, in the original numbering.
        splits: calibration for saliency and oracle, selection for the budget.
        settings: max_drop, confidence, metrics, objective, oracle_k, step, repair, runtime and
            threads are read.
        progress: called after every step.
        time_layers: gives the milliseconds of each layer of a network, for the latency objective.

    Returns:
        The trajectory, and the slim network with its repaired weights.

    Raises:
        InputError: the loss of the network is not a finite number.
    """
    layout = best_format(model, next(iter(splits.calibration.batches))[0])
    selection = lay_out(splits.selection, None, layout)
    before = measure_quality(model, selection)
    hopeless = _hopeless(groups, before, settings)
    if hopeless:
        return Trajectory((), 0, hopeless, {}), copy.deepcopy(model)
    calibration = lay_out(splits.calibration, settings.oracle_images, layout).batches
    objective = choose_objective(model, groups, calibration, settings, time_layers)
    solving = lay_out(splits.calibration, RESOLVE_IMAGES, layout)
    walk = _Walk(model, before, objective, calibration, selection, solving, settings)
    state = kept = first_state(
        model, groups, splits.calibration.batches, repair=settings.repair, memory_format=layout
    )
    steps: list[Step] = []
    ranking: Ranking | None = None
    known: dict[Hashable, float] = {}
    kept_steps, misses, ended = 0, 0, ""
    while not ended:
        ranking = ranking or rank(state, calibration, settings.metrics)
        taken = walk.take_step(state, ranking, known, len(steps) + 1)
        if taken is None:
            ended = objective.proposer.ended if not misses else _over_budget(steps, kept_steps)
            break
        step, following = taken
        steps.append(step)
        if progress:
            progress(step)
        if step.taken_back:
            continue
        state, ranking = following, None
        known.clear()
        objective.refresh(state.model)
        if step.within_budget:
            kept, kept_steps, misses = following, step.number, 0
        elif (misses := misses + 1) > PATIENCE:
            ended = _over_budget(steps, kept_steps)
    slim = kept.model
    for parameter in slim.parameters():
        parameter.requires_grad_(parameter.is_floating_point())
        parameter.data = parameter.data.contiguous()
    return Trajectory(tuple(steps), kept_steps, ended, kept.plan), slim


@dataclass(frozen=True)
class _Walk:
    """What every step of one search has in common."""

    original: nn.Module
    before: Quality
    objective: Objective
    oracle_batches: Batches
    selection: Split
    calibration: Split
    settings: Settings
    resolved_at: list[int] = field(default_factory=list)

    def take_step(
        self, state: State, ranking: Ranking, known: dict[Hashable, float], number: int
    ) -> tuple[Step, State] | None:
        """Return the best step from a state and where it leads; None if nothing can go."""
        started = time.perf_counter()
        proposals = self.objective.proposer.propose(state.groups, ranking.scores)
        if not proposals:
            return None
        sensitivities = measure_sensitivities(
            state, proposals, self.oracle_batches, ranking.loss, known
        )
        if not math.isfinite(min(sensitivities)):
            return None
        chosen = self.objective.cheapest(state, proposals, sensitivities)
        following = state.without(proposals[chosen].units)
        drop = self._drop(following)
        if self._worth_resolving(drop, number):
            resolved = following.resolved(self.original, self.calibration.batches)
            after = self._drop(resolved)
            if after.upper_points < drop.upper_points:
                following, drop = resolved, after
        within = drop.upper_points <= self.settings.max_drop
        narrowed = not within and self.objective.proposer.narrow(state.groups, proposals[chosen])
        return Step(
            number=number,
            candidates=_candidates(state.groups, proposals, sensitivities),
            chosen=chosen,
            channels_removed=sum(len(units) for units in proposals[chosen].units),
            conv_weights_removed_percent=self._removed(following.model, count_conv_weights),
            parameters_removed_percent=self._removed(following.model, count_parameters),
            calibration_loss=ranking.loss + sensitivities[chosen],
            drop=drop,
            within_budget=within,
            taken_back=narrowed,
            seconds=time.perf_counter() - started,
        ), following

    def _worth_resolving(self, drop: Drop, number: int) -> bool:
        """Tell whether a step breaks the budget by so little that re-solving may bring it back.

        It takes as long as several steps, so it is not done again at once.
        """
        excess = drop.upper_points - self.settings.max_drop
        again = not self.resolved_at or number - self.resolved_at[-1] > RESOLVE_EVERY
        worth = self.settings.repair and 0 < excess <= RESOLVE_POINTS and again
        if worth:
            self.resolved_at.append(number)
        return worth

    def _drop(self, state: State) -> Drop:
        quality = measure_quality(state.model, self.selection)
        return paired_drop(self.before, quality, self.settings.confidence)

    def _removed(self, slim: nn.Module, count: Callable[[nn.Module], int]) -> float:
        whole = count(self.original)
        return 100 * (1 - count(slim) / whole) if whole else 0.0


def _hopeless(groups: Sequence[Group], before: Quality, settings: Settings) -> str:
    """Return why no search is worth while, or an empty string."""
    if not groups:
        return "no layer of this network can be slimmed; each one's reason is in the report"
    unchanged = paired_drop(before, before, settings.confidence)
    if unchanged.upper_points > settings.max_drop:
        return (
            f"with {unchanged.images} selection images not even an unchanged network can be shown "
            f"to be within {settings.max_drop:g} points at {100 * settings.confidence:g} % "
            f"confidence (its bound is {unchanged.upper_points:.2f}); "
            "give more images, a larger --max-drop, or --confidence 0.5"
        )
    return ""


def _candidates(
    groups: Sequence[Group], proposals: Sequence[Proposal], sensitivities: Sequence[float]
) -> tuple[Candidate, ...]:
    return tuple(
        Candidate(
            metric=proposal.metric,
            channels={
                group.name: tuple(group.original_units[units].tolist())
                for group, units in zip(groups, proposal.units, strict=True)
                if len(units)
            },
            sensitivity=sensitivity,
        )
        for proposal, sensitivity in zip(proposals, sensitivities, strict=True)
    )


def _over_budget(steps: Sequence[Step], kept_steps: int) -> str:
    """Say why the search ended beyond the budget, from the step after the last one kept."""
    further = [step for step in steps[kept_steps:] if not step.taken_back]
    drop = further[0].drop
    bound = "" if drop.confidence == 0.5 else f" (upper bound {drop.upper_points:.2f})"
    text = f"the next step would cost {drop.points:.2f} points{bound}"
    if len(further) > 1:
        text += f", and none of the {len(further) - 1} after it came back within the budget"
    return text
