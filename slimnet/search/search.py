"""The search: metrics propose, the oracle decides, the budget ends it."""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from torch import Tensor, nn

from slimnet.errors import InputError
from slimnet.groups import Group, apply_plan, merge_plans, plan_for, shrink_groups
from slimnet.measure import (
    Quality,
    count_conv_weights,
    count_parameters,
    measure_quality,
    paired_drop,
)
from slimnet.records import Candidate, Drop, Plan, Splits, Step, Trajectory
from slimnet.recover import (
    Moments,
    gather_moments,
    removed_inputs,
    repaired_weights,
    set_values,
    shrink_moments,
)
from slimnet.saliency import gather_statistics, score_units
from slimnet.search.oracle import measure_sensitivities
from slimnet.search.proposals import Proposal, propose
from slimnet.settings import Settings

FIRST_STEP_SHARE = 0.04
Progress = Callable[[Step], None]


@dataclass(frozen=True)
class _State:
    """The network as it stands: slim so far, its groups, and what went, in original numbers."""

    model: nn.Module
    groups: Sequence[Group]
    plan: Plan
    moments: Mapping[str, Moments]

    def without(self, proposal: Proposal) -> _State:
        now = plan_for(self.groups, proposal.units)
        model = copy.deepcopy(self.model)
        set_values(model, repaired_weights(model, now, self.moments))
        return _State(
            apply_plan(model, now),
            shrink_groups(self.groups, proposal.units),
            merge_plans(self.plan, plan_for(self.groups, proposal.units, original=True)),
            shrink_moments(self.moments, removed_inputs(self.model, now)),
        )


@dataclass(frozen=True)
class _Ranking:
    """What the metrics say of a state, and its loss on the calibration split in nats."""

    scores: Mapping[str, Tensor]
    loss: float


def search(
    model: nn.Module,
    groups: Sequence[Group],
    splits: Splits,
    settings: Settings,
    progress: Progress | None = None,
) -> tuple[Trajectory, nn.Module]:
    """Find which channels go within the budget; the model is not changed.

    Each step lets the metrics propose, measures every proposal and removes the one that leaves
    the lowest loss. A step that breaks the budget is taken back and tried again with half as many
    channels; one that breaks it with a single channel ends the search.

    Args:
        model: the trained network, in eval mode.
        groups: from ``find_groups``, in the original numbering.
        splits: calibration for saliency and oracle, selection for the budget.
        settings: max_drop, confidence, metrics, oracle_k, step and repair are read.
        progress: called after every step.

    Returns:
        The trajectory, and the slim network with its repaired weights.

    Raises:
        InputError: the loss of the network is not a finite number.
    """
    before = measure_quality(model, splits.selection)
    calibration = splits.calibration.batches
    moments = gather_moments(model, groups, calibration) if settings.repair else {}
    state = _State(_working_copy(model), groups, {}, moments)
    channels = settings.step or _first_step(groups)
    steps: list[Step] = []
    ended = _hopeless(groups, before, settings)
    ranking = None if ended else _rank(state, splits, settings)
    while ranking is not None:
        started = time.perf_counter()
        proposals = propose(
            state.groups, ranking.scores, candidates=settings.oracle_k, channels=channels
        )
        if not proposals:
            ended = "every group is down to its last channel"
            break
        sensitivities = measure_sensitivities(
            state.model, state.groups, proposals, calibration, ranking.loss, state.moments
        )
        chosen = min(range(len(proposals)), key=sensitivities.__getitem__)
        following = state.without(proposals[chosen])
        quality = measure_quality(following.model, splits.selection)
        drop = paired_drop(before, quality, settings.confidence)
        step = Step(
            number=len(steps) + 1,
            candidates=_candidates(state.groups, proposals, sensitivities),
            chosen=chosen,
            channels_removed=sum(len(units) for units in proposals[chosen].units),
            conv_weights_removed_percent=_removed(model, following.model, count_conv_weights),
            parameters_removed_percent=_removed(model, following.model, count_parameters),
            calibration_loss=ranking.loss + sensitivities[chosen],
            drop=drop,
            within_budget=drop.upper_points <= settings.max_drop,
            seconds=time.perf_counter() - started,
        )
        steps.append(step)
        if progress:
            progress(step)
        if step.within_budget:
            state, ranking = following, _rank(following, splits, settings)
        elif channels > 1:
            channels //= 2
        else:
            ended = _over_budget(drop, settings)
            break
    kept = sum(step.within_budget for step in steps)
    return Trajectory(tuple(steps), kept, ended or "", state.plan), state.model


def _working_copy(model: nn.Module) -> nn.Module:
    working = copy.deepcopy(model).eval()
    for parameter in working.parameters():
        parameter.requires_grad_(False)
    return working


def _first_step(groups: Sequence[Group]) -> int:
    return max(1, round(FIRST_STEP_SHARE * sum(group.units for group in groups)))


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


def _rank(state: _State, splits: Splits, settings: Settings) -> _Ranking:
    gates = [gate for group in state.groups for gate in group.gates]
    statistics, loss = gather_statistics(state.model, gates, splits.calibration.batches)
    if not math.isfinite(loss):
        raise InputError(
            f"the loss on the calibration split is {loss}; check the weights and the "
            "preprocessing (--scale, --mean, --std)"
        )
    return _Ranking(score_units(state.groups, statistics, settings.metrics), loss)


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


def _removed(original: nn.Module, slim: nn.Module, count: Callable[[nn.Module], int]) -> float:
    whole = count(original)
    return 100 * (1 - count(slim) / whole) if whole else 0.0


def _over_budget(drop: Drop, settings: Settings) -> str:
    bound = "" if settings.confidence == 0.5 else f" (upper bound {drop.upper_points:.2f})"
    return (
        f"one more channel would cost {drop.points:.2f} points{bound}, "
        f"the budget is {settings.max_drop:g}"
    )
