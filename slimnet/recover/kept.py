"""What runs on the same batches leave in memory, so that the next ones need not begin anew."""

from __future__ import annotations

from collections.abc import Callable, Collection, Hashable, Mapping
from typing import Any

from torch import Tensor

from slimnet.recover.replay import Replay

MOST_ELEMENTS = 2**25


class Kept:
    """Outputs of calls, by batch, all together no more than MOST_ELEMENTS."""

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
        room = MOST_ELEMENTS - sum(self._elements.values()) - _in_memory(kept)
        try:
            return replay.resume(run, start, kept, starts, unread, room)
        finally:
            self._kept[batch], self._elements[batch] = kept, _in_memory(kept)

    def of(self, batch: Hashable) -> Mapping[int, Tensor]:
        """Return what is kept of the batch of this name, by call."""
        return self._kept.get(batch, {})

    def forget(self, *, but: Collection[Hashable] = ()) -> None:
        """Let go of what is kept of all batches but these."""
        for batch in self._kept.keys() - set(but):
            del self._kept[batch], self._elements[batch]


def _in_memory(kept: Mapping[int, Tensor]) -> int:
    """Return how many elements these outputs take: of a mere shape next to none."""
    # modules that only hand on what they read put out the same memory
    distinct = {output.data_ptr(): output for output in kept.values()}.values()
    return sum(min(o.numel(), o.untyped_storage().nbytes() // o.element_size()) for o in distinct)
