"""What the metrics say of a state: exactly what proposals need of it, and the losses of images.

Activations are gathered from all images, but a gradient is next to nothing where the network is
next to certain. Images come hardest first, by what their losses were before, and the backward pass
ends when the gradients that are left could change no proposal.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import product
from typing import Any

import torch
from torch import Tensor

from slimnet.measure import Classification, require_finite_loss
from slimnet.records import Batches, Plan
from slimnet.recover import RemovalErrors
from slimnet.saliency import (
    OF_GRADIENTS,
    BatchSums,
    Gathering,
    LayerStatistics,
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

SAFETY = 4.0
"""By how many times that part a score may be out: gradients do not follow 1 - p closely."""

RUNS = (1, 2, 4)
"""So many scores that follow each other may be out alike."""

Propose = Callable[[Mapping[str, Tensor]], Sequence[Proposal]]


@dataclass(frozen=True)
class Known:
    """What a ranking was made of: statistics by layer, and losses in nats, (images,).

    Their rows are the images of the numbers in ``order``, (images,) int64. ``plan`` is what is gone
    from the network, and ``renewals`` are those of its state. ``turn`` tells which images come next
    where only some are run again.
    """

    plan: Plan
    renewals: int
    order: Tensor
    statistics: Mapping[str, LayerStatistics]
    losses: Tensor
    turn: int = 0

    @property
    def elements(self) -> int:
        """How many numbers the statistics hold in memory."""
        return sum(layer.elements_held for layer in self.statistics.values())

    def narrowed(self, state: State) -> Known | None:
        """Return what is known of a state with fewer channels, None if it is not just that."""
        if not state.narrows(self.plan, self.renewals):
            return None
        plan, found = state.plan, {}
        for name, layer in self.statistics.items():
            before, now = (set(p.get(name, {}).get("out", ())) for p in (self.plan, plan))
            channels = [c for c in range(len(layer.weight) + len(before)) if c not in before]
            left = [place for place, channel in enumerate(channels) if channel not in now]
            found[name] = layer if before == now else layer.of_channels(torch.tensor(left))
        return replace(self, plan=plan, statistics=found)


@dataclass(frozen=True)
class Ranking:
    """Scores by metric, and the losses in nats on the oracle's images, (images,).

    A score of a metric in ``lacks`` may be out by up to that share of itself, one number for all
    units or (units,). ``known`` is None where it is not to be used again.
    """

    scores: Mapping[str, Tensor]
    losses: Tensor
    lacks: Mapping[str, Tensor | float] = field(default_factory=dict)
    known: Known | None = None

    def settled(self, propose: Propose) -> bool:
        """Tell whether no two neighbours in an order that could change places matter."""
        further, doubtful = self.doubts(propose)
        return not further and not doubtful

    def doubts(self, propose: Propose) -> tuple[list[Proposal], set[Hashable]]:
        """Return what else might be proposed, and the keys of proposals that might not be.

        Every second score of an order is raised by as much as it may be out, and the others are
        lowered; then the other way round, and so on with every two and four that follow each other.
        """
        proposed = {proposal.key for proposal in propose(self.scores)}
        further: dict[Hashable, Proposal] = {}
        doubtful: set[Hashable] = set()
        for run, first in product(RUNS, (0, 1)) if self.lacks else ():
            others = {proposal.key: proposal for proposal in propose(self._parted(run, first))}
            further |= {key: other for key, other in others.items() if key not in proposed}
            doubtful |= proposed - others.keys()
        return list(further.values()), doubtful

    def _parted(self, run: int, first: int) -> dict[str, Tensor]:
        """Return the scores, every second ``run`` of an order raised and the others lowered."""
        scores = dict(self.scores)
        for metric, lack in self.lacks.items():
            score = scores[metric]
            order = torch.argsort(score, stable=True)
            raised = torch.empty(len(order), dtype=torch.bool)
            raised[order] = torch.arange(len(order)) // run % 2 == first
            out = score.abs() * lack
            scores[metric] = score + torch.where(raised, out, -out)
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
    ranker = Ranker(state, metrics, errors or errors_of(state))
    if propose is None or before is None or not can_order(state, batches):
        return ranker.ranking([ranker.gathering.run(batch) for batch in batches])
    assert isinstance(batches, Images)
    order = torch.argsort(before, descending=True, stable=True)
    hardest: list[Any] = list(batches.ordered(order))
    size, share = batches.images_per_batch, FIRST_SHARE
    done = batches_to_do(before[order], share, size)
    parts = [ranker.gathering.run(b, gradients=i < done) for i, b in enumerate(hardest)]
    while True:
        found = ranker.ranking(parts, order, size * done)
        if found.settled(propose):
            return found
        share *= FALL
        further = max(done + 1, batches_to_do(found.losses[order], share, size))
        parts[done:further] = map(ranker.gathering.run, hardest[done:further])
        done = further


def can_order(state: State, batches: Batches) -> bool:
    """Tell whether images can come hardest first: they are in memory, and a loss is -log p."""
    return isinstance(state.task, Classification) and isinstance(batches, Images)


def errors_of(state: State, before: RemovalErrors | None = None) -> RemovalErrors:
    """Return the removal errors of a state; those ``before`` it count where nothing has changed."""
    return RemovalErrors(state.model, state.groups, state.moments, before)


class Ranker:
    """Makes rankings of one state, which is not changed; ``gathering`` gives what they are of."""

    def __init__(self, state: State, metrics: Sequence[str], errors: RemovalErrors) -> None:
        self._state, self._errors = state, errors
        self.metrics = metrics
        # a layer behind a concatenation can be of several groups, and is watched once
        gates = (gate for group in state.groups for gate in group.gates)
        self._gates = list(dict.fromkeys(gates))
        self.of_gradients = [m for m in metrics if OF_GRADIENTS & read_by([m])]
        self.gathering = Gathering(state.running, self._gates, read_by(metrics), state.task)

    def ranking(
        self, parts: Sequence[BatchSums], order: Tensor | None = None, done: int | None = None
    ) -> Ranking:
        """Return what the batches say, of which ``done`` images have gradients, or all.

        ``order`` are the numbers of their images, (images,) int64, where they do not come by those.
        """
        statistics, losses = self.statistics(parts)
        require_finite_loss(float(losses.mean()), "calibration")
        order = torch.arange(len(losses)) if order is None else order
        lacks = {}
        if done is not None and done < len(losses):
            lack = SAFETY * float(shares_after(losses)[done])
            lacks = dict.fromkeys(self.of_gradients, lack)
        known = Known(self._state.plan, self._state.renewals, order, statistics, losses)
        return Ranking(self.scores(statistics), in_place(losses, order), lacks, known)

    def statistics(
        self, parts: Sequence[BatchSums]
    ) -> tuple[Mapping[str, LayerStatistics], Tensor]:
        """Return what these batches say of each layer, and their images' losses, in nats."""
        return join_batches(self._state.model, self._gates, parts)

    def scores(
        self, statistics: Mapping[str, LayerStatistics], metrics: Sequence[str] | None = None
    ) -> dict[str, Tensor]:
        """Return what all metrics, or those named, make of the statistics, (units,) each."""
        return score_units(
            self._state.groups,
            statistics,
            self.metrics if metrics is None else metrics,
            model=self._state.model,
            removal_errors=self._errors,
        )


def in_place(values: Tensor, order: Tensor) -> Tensor:
    """Return values of images, (images,), by the images' numbers; ``order`` are theirs."""
    return torch.empty_like(values).index_copy_(0, order, values)


def shares_after(losses: Tensor) -> Tensor:
    """Return which part of all (1 - p) is on the images after the first n, (images + 1,)."""
    wrong = -torch.expm1(-losses.clamp_min(0))
    rest = torch.cat([wrong.flip(0).cumsum(0).flip(0), wrong.new_zeros(1)])
    return rest / rest[0].clamp_min(torch.finfo(rest.dtype).tiny)


def batches_to_do(losses: Tensor, share: float, size: int) -> int:
    """Return how many batches leave no more than this share of all (1 - p) to the others."""
    images = int((shares_after(losses) > share).sum())
    return -(-images // size)
