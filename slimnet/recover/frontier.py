"""The frontier: how far a network is settled, while what lies behind it is changed and run again.

Whoever changes one layer after the other, in network order, runs the same batches over and over,
and before the layer at hand they always give the same. What that was is kept, as far as memory
allows, and a run begins where it ends.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from types import TracebackType
from typing import Any

from torch import Tensor, nn

from slimnet.recover.kept import Kept
from slimnet.recover.replay import Replay
from slimnet.recover.trace import Call


class Frontier:
    """Within its ``with`` block the model runs from the first call that may change.

    The model is changed for the time of the block: each module's ``forward`` is wrapped. ``few``
    runs it on a few images, and returns its outputs: without it more is kept than will be read.
    """

    def __init__(
        self,
        model: nn.Module,
        calls: Sequence[Call],
        few: Callable[[], Sequence[Tensor]] | None = None,
    ) -> None:
        self._few = few
        self._start, self._unread = 0, frozenset[int]()
        self._replay = Replay(model, calls)
        self._kept = Kept()

    def __enter__(self) -> Frontier:
        self._replay.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:  # fmt: skip
        self._replay.__exit__(kind, error, traceback)
        self._kept.forget()

    def begin_at(self, start: int) -> None:
        """Take note that what comes before call ``start`` is settled."""
        if start < self._start:
            self._kept.forget()
        self._start = start
        if self._few is not None:
            self._unread = self._replay.find_unread(self._few, start)

    def run(self, batch: Hashable, run: Callable[[], Any]) -> Any:
        """Return what ``run`` gives, which runs the model on the batch of this name."""
        return self._kept.run(self._replay, batch, run, self._start, {self._start}, self._unread)
