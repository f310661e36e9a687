"""The order that each metric gives to all units, and how long the metric takes alone."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from torch import Tensor

from slimnet.records import Split
from slimnet.recover import gather_moments
from slimnet.saliency import GROUP_METRICS, METRICS, needs_removal_errors, read_by
from slimnet.search.ranking import rank
from slimnet.search.state import State
from slimnet.settings import Settings


@dataclass(frozen=True)
class Orders:
    """Scores of all units (units,) float64 and seconds by metric, and why others have none."""

    scores: Mapping[str, Tensor]
    seconds: Mapping[str, float]
    left_out: Mapping[str, str]


def order_by_each(
    state: State, calibration: Split, everything: Split, settings: Settings
) -> tuple[Orders, State]:
    """Score the units by each metric alone; the state is not changed.

    Args:
        state: the whole network, without moments.
        calibration: what the metrics see.
        everything: what moments are gathered on, where the repair or a metric needs them.
        settings: metrics (all of them, if none are named) and repair are read.

    Returns:
        The orders, and the state with the moments if there is a use for them.
    """
    names: Sequence[str] = settings.metrics or (*METRICS, *GROUP_METRICS)
    moments_seconds = 0.0
    if settings.repair or needs_removal_errors(names):
        begun = time.perf_counter()
        moments = gather_moments(
            state.model, state.groups, everything.batches, everything.images, state.task
        )
        moments_seconds = time.perf_counter() - begun
        state = replace(state, moments=moments)
    scores: dict[str, Tensor] = {}
    seconds: dict[str, float] = {}
    left_out: dict[str, str] = {}
    for name in names:
        if why := _missing(name, state):
            left_out[name] = why
            continue
        begun = time.perf_counter()
        scores[name] = _scores(name, state, calibration)
        seconds[name] = time.perf_counter() - begun
        if needs_removal_errors([name]):
            seconds[name] += moments_seconds
    return Orders(scores, seconds, left_out), state


def _scores(metric: str, state: State, calibration: Split) -> Tensor:
    """Return the scores of a metric; one of weights or moments alone needs no pass over images."""
    batches = calibration.batches
    if not read_by([metric]) - {"weight"}:
        batches = [state.task.few(batches)]
    return rank(state, batches, [metric]).scores[metric]


def _missing(metric: str, state: State) -> str:
    """Return what a metric needs that is not at hand, or an empty string."""
    if needs_removal_errors([metric]) and not state.moments:
        return "no layer that reads what could go can be repaired, so there are no such errors"
    if state.task.by_image or "prediction" not in read_by([metric]):
        return ""
    return "it compares channels with the network's classes, which a task of your own does not have"
