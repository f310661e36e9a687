"""What the metrics say of a state: the scores of all its units, and the losses of the images."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from torch import Tensor

from slimnet.measure import require_finite_loss
from slimnet.records import Batches
from slimnet.recover import RemovalErrors
from slimnet.saliency import gather_statistics, read_by, score_units
from slimnet.search.state import State


@dataclass(frozen=True)
class Ranking:
    """Scores of all units by metric, (units,) each, and the losses of images in nats, (images,)."""

    scores: Mapping[str, Tensor]
    losses: Tensor


def rank(
    state: State, batches: Batches, metrics: Sequence[str], errors: RemovalErrors | None = None
) -> Ranking:
    """Score all units of a state by each metric; the state is not changed.

    Args:
        state: the network as it stands.
        batches: the oracle's images.
        metrics: their names.
        errors: of the state's consumers, where some are known from an earlier one.

    Raises:
        InputError: the loss is not a finite number.
    """
    # a layer behind a concatenation can be of several groups, and is watched once
    gates = list(dict.fromkeys(gate for group in state.groups for gate in group.gates))
    statistics, losses = gather_statistics(
        state.running, gates, batches, read_by(metrics), state.task, weights_of=state.model
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
    """Return the removal errors of a state; those ``before`` it count where nothing has changed."""
    return RemovalErrors(state.model, state.groups, state.moments, before)
