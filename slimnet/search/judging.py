"""Judging a state: its drop on the selection images, from the first layer on that is another."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import chain
from typing import Any

import torch
from torch import Tensor, nn

from slimnet.groups import Group
from slimnet.records import Drop, Split
from slimnet.recover.kept import Kept
from slimnet.recover.replay import Replay
from slimnet.recover.trace import Call, first_call
from slimnet.search.recovery import RESOLVE_POINTS
from slimnet.search.state import State
from slimnet.settings import Settings


class Judging:
    """Judges one state after the other on the same images.

    One step changes few layers, and those before give what they gave in the last state judged.

    Args:
        original: what the task measured of the original network on the selection split.
        selection: the split.
        settings: max_drop and confidence are read.
        groups: of the first state; a step begins where one of their layers is.
        calls: of the modules of the networks that are judged, in order.
    """

    def __init__(
        self,
        original: Any,
        selection: Split,
        settings: Settings,
        groups: Sequence[Group],
        calls: Sequence[Call],
    ) -> None:
        self._original, self._selection, self._calls = original, selection, calls
        # a little above the budget, since that much may be recovered
        self._confidence, self._limit = settings.confidence, settings.max_drop + RESOLVE_POINTS
        self._starts = {first_call(calls, {m.module for m in group.members}) for group in groups}
        self._kept = Kept()
        self._last: nn.Module | None = None

    def drop(self, state: State) -> Drop:
        """Return the drop of a state; where it is far above the budget, that of some images."""
        network, reached = state.running, set()
        start = 0 if self._last is None else first_call(self._calls, _changed(self._last, network))
        self._last = network

        def call(batch: int, run: Callable[[], Tensor]) -> Any:
            reached.add(batch)
            with Replay(network, self._calls) as replay:
                return self._kept.run(replay, batch, run, start, self._starts)

        try:
            return state.task.judge(
                self._original, network, self._selection, self._confidence, self._limit, call
            )
        finally:
            # of the others there is what a network before the last one gave
            self._kept.forget(but=reached)


def _changed(before: nn.Module, now: nn.Module) -> set[str]:
    """Return the modules that have other parameters or buffers of their own."""
    known = dict(_tensors(before))
    return {
        name.rpartition(".")[0]
        for name, tensor in _tensors(now)
        if name not in known or not torch.equal(known[name], tensor)
    }


def _tensors(model: nn.Module) -> Iterator[tuple[str, Tensor]]:
    """Yield all of them by each of their names, since either may be that of the first call."""
    return chain(
        model.named_parameters(remove_duplicate=False), model.named_buffers(remove_duplicate=False)
    )
