"""The frontier: how far a network is settled, while what lies behind it is changed and run again.

Whoever changes one layer after the other, in network order, runs the same batches over and over,
and before the layer at hand they always give the same. What that was is kept, as far as memory
allows, and a run begins where it ends.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from types import TracebackType
from typing import TypeVar

from torch import Tensor, nn

from slimnet.recover.replay import Call, Replay

MOST_ELEMENTS = 2**25

Result = TypeVar("Result")


class Frontier:
    """Within its ``with`` block the model runs from ``start``, the first call that may change.

    The model is changed for the time of the block: each module's ``forward`` is wrapped.
    """

    def __init__(self, model: nn.Module, calls: Sequence[Call]) -> None:
        self.start = 0
        self._replay = Replay(model, calls)
        self._kept: dict[Hashable, dict[int, Tensor]] = {}
        self._elements: dict[Hashable, int] = {}

    def __enter__(self) -> Frontier:
        self._replay.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:  # fmt: skip
        self._replay.__exit__(kind, error, traceback)
        self._kept.clear()

    def run(self, batch: Hashable, run: Callable[[], Result]) -> Result:
        """Return what ``run`` gives, which runs the model on the batch of this name."""
        kept = self._kept.pop(batch, {})
        self._elements.pop(batch, None)
        try:
            result: Result = self._replay.resume(run, self.start, kept)
            return result
        finally:
            # modules that only hand on what they read put out the same memory
            elements = sum({t.data_ptr(): t.numel() for t in kept.values()}.values())
            if elements + sum(self._elements.values()) <= MOST_ELEMENTS:
                self._kept[batch], self._elements[batch] = kept, elements
