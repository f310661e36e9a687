"""How large the next step is: sets of channels that shrink, or blocks down to allowed widths."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

from torch import Tensor

from slimnet.groups import Group
from slimnet.search.allowed import AllowedWidths
from slimnet.search.proposals import ANY_WIDTH, Proposal, propose_blocks, propose_sets

FIRST_STEP_SHARE = 0.04
MOST_BLOCKS = 4
STEPS_TO_CROSS = 4


class Proposer(Protocol):
    """Makes the proposals of each step, and learns from what became of them."""

    ended: str
    allowed: AllowedWidths
    by_group: bool
    """Whether every proposal is of one group."""

    @property
    def narrowing(self) -> bool:
        """Whether a proposal that breaks the budget is not made again, nor one as large at once."""
        ...

    def propose(self, groups: Sequence[Group], scores: Mapping[str, Tensor]) -> list[Proposal]:
        """Return what the oracle should measure; empty when there is nothing left to try."""
        ...

    def learn(self, groups: Sequence[Group], proposal: Proposal, price: float) -> None:
        """Take note of the price (loss increase for what is saved) of a measured proposal."""
        ...

    def narrow(self, groups: Sequence[Group], proposal: Proposal) -> bool:
        """Take note that a proposal broke the budget; False if nothing smaller is left to try."""
        ...

    def widen(self) -> None:
        """Take note that a proposal was within the budget: larger ones may be again."""
        ...

    def reopen(self) -> None:
        """Take note that there is more room in the budget than when proposals broke it."""
        ...


class SetProposer:
    """Sets over all groups; half as large after one that breaks the budget, down to one channel,
    and twice as large again after one that does not."""

    by_group = False

    def __init__(
        self,
        groups: Sequence[Group],
        candidates: int,
        step: int | None,
        allowed: AllowedWidths = ANY_WIDTH,
    ) -> None:
        share = allowed.max_ratio
        last = "its last channel" if share is None else f"what --max-ratio {share:g} leaves"
        self.ended = f"every group is down to {last}"
        self._candidates, self.allowed = candidates, allowed
        share = round(FIRST_STEP_SHARE * sum(group.units for group in groups))
        self._channels = self._most = step or max(1, share)

    @property
    def narrowing(self) -> bool:
        """See Proposer."""
        return self._channels > 1

    def propose(self, groups: Sequence[Group], scores: Mapping[str, Tensor]) -> list[Proposal]:
        """See Proposer."""
        return propose_sets(
            groups,
            scores,
            candidates=self._candidates,
            channels=self._channels,
            allowed=self.allowed,
        )

    def learn(self, groups: Sequence[Group], proposal: Proposal, price: float) -> None:
        """See Proposer; prices do not matter here."""

    def narrow(self, groups: Sequence[Group], proposal: Proposal) -> bool:
        """See Proposer."""
        if self._channels == 1:
            return False
        self._channels //= 2
        return True

    def widen(self) -> None:
        """See Proposer; a finite split is noisy, and what broke the budget once may not again."""
        self._channels = min(2 * self._channels, self._most)

    def reopen(self) -> None:
        """See Proposer; the sets stay as small as they have become."""


class BlockProposer:
    """Blocks within one group each, down to widths that pay on the runtime or were asked for.

    Prices mostly rise as a network shrinks, so the groups that were cheapest when last measured
    are measured again first (lazy greedy; Minoux 1978), and the rest only when their turn comes.
    """

    by_group = True

    def __init__(self, groups: Sequence[Group], candidates: int, allowed: AllowedWidths) -> None:
        rules = " and ".join((*allowed.rules, "fits the budget"))
        self.ended = f"no group has a lower width that {rules}"
        self._candidates, self.allowed = candidates, allowed
        widest = max(group.units for group in groups)
        lower = allowed.lower(widest)  # of 50 it may be 48: the next one is a whole block away
        block = (lower - allowed.lower(lower)) or widest
        self._widths_down = min(MOST_BLOCKS, max(1, widest // (STEPS_TO_CROSS * block)))
        self._prices: dict[str, float] = {}
        self._exhausted: set[str] = set()

    @property
    def narrowing(self) -> bool:
        """See Proposer."""
        return True

    def propose(self, groups: Sequence[Group], scores: Mapping[str, Tensor]) -> list[Proposal]:
        """See Proposer."""
        found = propose_blocks(groups, scores, allowed=self.allowed, blocks=self._widths_down)
        open_groups = [name for name in found if name not in self._exhausted]
        unknown = [name for name in open_groups if name not in self._prices]
        measured = [name for name in open_groups if name in self._prices]
        known = sorted(measured, key=lambda name: self._prices[name])
        proposals = [proposal for name in unknown for proposal in found[name]]
        for name in known:
            if len(proposals) >= self._candidates:
                break
            proposals += found[name]
        return proposals

    def learn(self, groups: Sequence[Group], proposal: Proposal, price: float) -> None:
        """See Proposer."""
        name = self._name(groups, proposal)
        self._prices[name] = price

    def narrow(self, groups: Sequence[Group], proposal: Proposal) -> bool:
        """See Proposer."""
        if self._widths_down > 1:
            self._widths_down //= 2
        else:
            self._exhausted.add(self._name(groups, proposal))
        return True

    def widen(self) -> None:
        """See Proposer; blocks stay as small as they have become."""

    def reopen(self) -> None:
        """See Proposer."""
        self._exhausted.clear()

    def _name(self, groups: Sequence[Group], proposal: Proposal) -> str:
        return next(
            group.name for group, units in zip(groups, proposal.units, strict=True) if len(units)
        )
