"""What the metrics say of a state: exactly what proposals need of it, and the losses of images.

Activations are gathered from all images, but a gradient is next to nothing where the network is
next to certain. Images come hardest first, by what their losses were before, and the backward pass
ends when the gradients that are left could change no proposal.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from slimnet.measure import Classification, require_finite_loss
from slimnet.records import Batches
from slimnet.recover import RemovalErrors
from slimnet.saliency import (
    OF_GRADIENTS,
    BatchSums,
    Gathering,
    join_batches,
    read_by,
    score_units,
)
from slimnet.search.layout import Images
from slimnet.search.proposals import Proposal
from slimnet.search.state import State

FIRST_SHARE = 1e-3
"""Of all (1 - p) the part that may be on images without gradients, at the first attempt."""

FALL = 0.3
"""By this that part falls from one attempt to the next."""

SAFETY = 8.0
"""How many times that part a score may lack, since gradients do not follow 1 - p closely."""

Propose = Callable[[Mapping[str, Tensor]], Sequence[Proposal]]


@dataclass(frozen=True)
class Ranking:
    """Scores by metric, and the losses in nats on the oracle's images, (images,).

    A score of a metric in ``lacking`` may lack up to the share ``lack`` of itself.
    """

    scores: Mapping[str, Tensor]
    losses: Tensor
    lacking: Collection[str] = ()
    lack: float = 0.0

    def settled(self, propose: Propose) -> bool:
        """Tell whether no two neighbours in an order that could change places matter.

        Every second score is raised by all that it may lack, then every other second one.
        """
        if self.lack == 0 or not self.lacking:
            return True
        proposed = {proposal.key for proposal in propose(self.scores)}
        return all(
            {proposal.key for proposal in propose(self._raised(first))} == proposed
            for first in (0, 1)
        )

    def _raised(self, first: int) -> dict[str, Tensor]:
        scores = dict(self.scores)
        for metric in self.lacking:
            score = scores[metric] = scores[metric].clone()
            score[torch.argsort(score, stable=True)[first::2]] *= 1 + self.lack
        return scores


def rank(
    state: State,
    batches: Batches,
    metrics: Sequence[str],
    before: Tensor | None = None,
    propose: Propose | None = None,
    errors: RemovalErrors | None = None,
) -> Ranking:
    """Score all units of a state by each metric; the state is not changed.

    Args:
        state: the network as it stands.
        batches: the oracle's images.
        metrics: their names.
        before: about what the losses of the images are, (images,); without it, or without
            ``propose``, where the images are not all in memory, or with a loss of the user's own,
            scores lack nothing.
        propose: what is made of the scores, and must be as if they lacked nothing.
        errors: of the state, where some are known from an earlier one.

    Raises:
        InputError: the loss is not a finite number.
    """
    ranker = _Ranker(state, metrics, errors or errors_of(state))
    likelihoods = isinstance(state.task, Classification)
    if propose is None or before is None or not likelihoods or not isinstance(batches, Images):
        return ranker.ranking([ranker.gathering.run(batch) for batch in batches])
    order = torch.argsort(before, descending=True, stable=True)
    hardest: list[Any] = list(batches.ordered(order))
    size, share = batches.images_per_batch, FIRST_SHARE
    done = _batches_to_do(before[order], share, size)
    parts = [ranker.gathering.run(b, gradients=i < done) for i, b in enumerate(hardest)]
    while True:
        found = ranker.ranking(parts, size * done)
        if found.settled(propose):
            break
        share *= FALL
        further = max(done + 1, _batches_to_do(found.losses, share, size))
        parts[done:further] = map(ranker.gathering.run, hardest[done:further])
        done = further
    losses = torch.empty_like(found.losses)
    losses[order] = found.losses
    return Ranking(found.scores, losses, found.lacking, found.lack)


def errors_of(state: State, before: RemovalErrors | None = None) -> RemovalErrors:
    """Return the removal errors of a state; those ``before`` it count where nothing has changed."""
    return RemovalErrors(state.model, state.groups, state.moments, before)


class _Ranker:
    """Makes rankings of one state."""

    def __init__(self, state: State, metrics: Sequence[str], errors: RemovalErrors) -> None:
        self._state, self._metrics, self._errors = state, metrics, errors
        # a layer behind a concatenation can be of several groups, and is watched once
        gates = (gate for group in state.groups for gate in group.gates)
        self._gates = list(dict.fromkeys(gates))
        self._lacking = {metric for metric in metrics if OF_GRADIENTS & read_by([metric])}
        self.gathering = Gathering(state.running, self._gates, read_by(metrics), state.task)

    def ranking(self, parts: Sequence[BatchSums], done: int | None = None) -> Ranking:
        """Return what the batches say, of which ``done`` images have gradients, or all."""
        statistics, losses = join_batches(self._state.model, self._gates, parts)
        require_finite_loss(float(losses.mean()), "calibration")
        scores = score_units(
            self._state.groups,
            statistics,
            self._metrics,
            model=self._state.model,
            removal_errors=self._errors,
        )
        lack = (
            0.0 if done is None else SAFETY * float(_shares_after(losses)[min(done, len(losses))])
        )
        return Ranking(scores, losses, self._lacking, lack)


def _shares_after(losses: Tensor) -> Tensor:
    """Return which part of all (1 - p) is on the images after the first n, (images + 1,)."""
    wrong = -torch.expm1(-losses.clamp_min(0))
    rest = torch.cat([wrong.flip(0).cumsum(0).flip(0), wrong.new_zeros(1)])
    return rest / rest[0].clamp_min(torch.finfo(rest.dtype).tiny)


def _batches_to_do(losses: Tensor, share: float, size: int) -> int:
    """Return how many batches leave no more than this share of all (1 - p) to the others."""
    images = int((_shares_after(losses) > share).sum())
    return -(-images // size)
