"""What the metrics propose of one state after the other, each from what was known before it.

A network that differs by one channel from the last is only glanced at. Where a proposal is in
doubt then, the oracle measures what might take its place as well, and more images are looked at
where one that is in doubt would win.
"""

from __future__ import annotations

from collections.abc import Collection, Hashable, Sequence
from dataclasses import dataclass, field, replace

from torch import Tensor

from slimnet.records import Batches
from slimnet.recover import RemovalErrors
from slimnet.saliency import default_metrics
from slimnet.search.glance import Glances
from slimnet.search.layout import Images
from slimnet.search.proposals import Proposal
from slimnet.search.ranking import Known, Propose, Ranker, Ranking, can_order, errors_of, rank
from slimnet.search.recording import Recording
from slimnet.search.state import State
from slimnet.settings import Settings

MOST_IN_DOUBT = 0.5
"""Of the proposals, as many others may be measured instead of a further glance."""

MOST_ELEMENTS = 2**24


@dataclass(frozen=True)
class Proposed:
    """What is proposed of a state, what ``others`` might be, and the keys of what might not be.

    ``losses`` are those of the oracle's images, (images,), in nats. ``glances`` is how many it took
    beyond those before at the same state, and None where all images were run.
    """

    proposals: Sequence[Proposal]
    losses: Tensor
    glances: int | None
    others: Sequence[Proposal] = ()
    doubtful: Collection[Hashable] = ()

    @property
    def in_doubt(self) -> set[Hashable]:
        """The keys of what is proposed or not, as small errors of the scores will have it."""
        return {*self.doubtful, *(proposal.key for proposal in self.others)}

    @property
    def alone(self) -> bool:
        """Whether every proposal is of one unit: then the next state differs little from this."""
        return all(proposal.count == 1 for proposal in self.proposals)

    @property
    def others_are_few(self) -> bool:
        """Whether to measure them as well is less work than a further glance."""
        return len(self.others) <= MOST_IN_DOUBT * len(self.proposals)


@dataclass
class Proposing:
    """Makes proposals from rankings on the oracle's images."""

    images: Batches
    settings: Settings
    recording: Recording
    _ranking: Ranking | None = None
    _glances: Glances | None = None
    _before: Known | None = None
    _losses_before: Tensor | None = None
    _errors: RemovalErrors | None = None
    _owed: list[tuple[Propose, int | None]] = field(default_factory=list)

    def begin(self, losses_before: Tensor | None) -> None:
        """Take note that another state comes, and of about what its losses are, (images,)."""
        known = self._ranking.known if self._ranking else None
        if known is not None and losses_before is not None:
            known = replace(known, losses=losses_before[known.order])
        self._before, self._losses_before = known, losses_before
        self._ranking = self._glances = None
        self._owed.clear()

    def free_memory(self) -> None:
        """Let go of what takes memory, where a state comes that has little in common with this."""
        self._errors = self._ranking = self._glances = None

    def propose(self, state: State, propose: Propose) -> Proposed:
        """Return what is proposed of a state, by as few images as will do."""
        self._catch_up(state)
        if self._ranking is None:
            self._glances = self._start(state)
            return self.look_again(state, propose)
        found = self._of(self._ranking, propose, 0)
        return found if self._will_do(found) else self.look_again(state, propose)

    def look_again(self, state: State, propose: Propose) -> Proposed:
        """Return what is proposed of a state with less doubt than before."""
        if self._glances is None:
            return self._propose_wholly(state, propose)
        found = self._of(self._glances.look(), propose, 1)
        while not self._will_do(found):
            assert found.glances
            found = self._of(self._glances.look(), propose, found.glances + 1)
        return found

    def catch_up(self, state: State, propose: Propose, glances: int | None, *, alone: bool) -> None:
        """Know what an interrupted run knew, which had proposed so, and might again.

        What sets of units were proposed from serves this state only. It is found out when more is
        proposed of the state.
        """
        if glances is None:
            self._owed.clear()  # all images were run, whatever was known before
        served = alone and not self._owed
        self._owed.append((propose, glances))
        if served:
            self._catch_up(state)

    def _catch_up(self, state: State) -> None:
        for propose, glances in self._owed:
            if glances is None:
                self._propose_wholly(state, propose)
            for _ in range(glances or 0):
                self._glances = self._glances or self._start(state)
                if self._glances is not None:
                    self._of(self._glances.look(), propose, 1)
        self._owed.clear()

    def _will_do(self, found: Proposed) -> bool:
        """Tell whether a further glance could not help, or costs more than to measure others."""
        return not found.in_doubt or (found.alone and found.others_are_few)

    def _propose_wholly(self, state: State, propose: Propose) -> Proposed:
        before, errors = self._losses_before, self._errors_of(state)
        ranking = rank(state, self.images, self._metrics(state), before, propose, errors)
        return self._of(ranking, propose, None)

    def _of(self, ranking: Ranking, propose: Propose, glances: int | None) -> Proposed:
        """Return what a ranking proposes; it is kept, with what it was made of if that may help."""
        others, doubtful = ranking.doubts(propose)
        found = Proposed(propose(ranking.scores), ranking.losses, glances, others, doubtful)
        if ranking.known and not (found.alone and ranking.known.elements <= MOST_ELEMENTS):
            ranking = replace(ranking, known=None)
        self._ranking = ranking
        return found

    def _start(self, state: State) -> Glances | None:
        """Return the glances at a state, None where nothing is known of its like."""
        known = self._before.narrowed(state) if self._before else None
        self._before = None
        if known is None or not can_order(state, self.images):
            return None
        assert isinstance(self.images, Images)
        ranker = Ranker(state, self._metrics(state), self._errors_of(state))
        glances = Glances(ranker, self.images, known, self.recording)
        return glances if glances.worth_while else None

    def _metrics(self, state: State) -> Sequence[str]:
        return self.settings.metrics or default_metrics(repaired=bool(state.moments))

    def _errors_of(self, state: State) -> RemovalErrors:
        self._errors = errors_of(state, self._errors)
        return self._errors
