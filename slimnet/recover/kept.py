"""What runs on the same batches leave in memory, so that the next ones need not begin anew."""

from __future__ import annotations

from collections.abc import Callable, Collection, Hashable
from typing import Any

from torch import Tensor

from slimnet.recover.replay import Replay

MOST_ELEMENTS = 2**25


class Kept:
    """Outputs of calls, by batch, as long as all together fit in MOST_ELEMENTS."""

    def __init__(self) -> None:
        self._kept: dict[Hashable, dict[int, Tensor]] = {}
        self._elements: dict[Hashable, int] = {}

    def run(
        self,
        replay: Replay,
        batch: Hashable,
        run: Callable[[], Any],
        start: int,
        starts: Collection[int],
        unread: Collection[int] = (),
    ) -> Any:
        """Return what ``run`` gives, which runs the model on the batch of this name.

        See ``Replay.resume``: call ``start`` is the first that may have changed since the last run
        on this batch, and the next one can begin at ``starts``.
        """
        kept = self._kept.pop(batch, {})
        self._elements.pop(batch, None)
        try:
            return replay.resume(run, start, kept, starts, unread)
        finally:
            # modules that only hand on what they read put out the same memory
            elements = sum({t.data_ptr(): _elements(t) for t in kept.values()}.values())
            if elements + sum(self._elements.values()) <= MOST_ELEMENTS:
                self._kept[batch], self._elements[batch] = kept, elements

    def forget(self, *, but: Collection[Hashable] = ()) -> None:
        """Let go of what is kept of all batches but these."""
        for batch in self._kept.keys() - set(but):
            del self._kept[batch], self._elements[batch]


def _elements(output: Tensor) -> int:
    """Return how many are in memory: of a mere shape next to none."""
    return min(output.numel(), output.untyped_storage().nbytes() // output.element_size())
