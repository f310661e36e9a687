"""The records of a search's steps, and what they say about its end."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from torch import nn

from slimnet.groups import Group
from slimnet.measure import count_conv_weights, count_parameters
from slimnet.records import Candidate, Step
from slimnet.search.measured import Measured
from slimnet.search.recovery import Judged


def make_step(
    original: nn.Module, after: Judged, candidates: Sequence[Candidate], chosen: int, **told: Any
) -> Step:
    """Return the record of a step that leads to ``after``; ``told`` are its other fields."""
    slim = after.state.model
    return Step(
        candidates=tuple(candidates),
        chosen=chosen,
        channels_removed=sum(len(units) for units in candidates[chosen].channels.values()),
        conv_weights_removed_percent=_removed(original, slim, count_conv_weights),
        parameters_removed_percent=_removed(original, slim, count_parameters),
        drop=after.drop,
        recovered_by=after.recovered_by,
        **told,
    )


def candidates_of(groups: Sequence[Group], found: Measured) -> tuple[Candidate, ...]:
    """Return what was proposed and measured of groups as they stand, in the original numbering."""
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


def why_over_budget(steps: Sequence[Step]) -> str:
    """Say why a search ended beyond the budget, from the steps after the last one kept."""
    further = [step for step in steps if not step.taken_back]
    drop = further[0].drop
    bound = "" if drop.confidence == 0.5 else f" (upper bound {drop.upper_points:.2f})"
    text = f"the next step would cost {drop.points:.2f} points{bound}"
    if len(further) > 1:
        text += f", and none of the {len(further) - 1} after it came back within the budget"
    return text


def _removed(original: nn.Module, slim: nn.Module, count: Callable[[nn.Module], int]) -> float:
    whole = count(original)
    return 100 * (1 - count(slim) / whole) if whole else 0.0
