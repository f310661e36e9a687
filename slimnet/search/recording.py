"""The hardest images of a state, as a glance ran them: the race goes on from there.

Both run the network as it stands on the same images. What its layers put out at the first glance is
kept as far as memory allows, and the race takes those images first, in the same batches.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from slimnet.groups import Group
from slimnet.recover.kept import Kept
from slimnet.recover.replay import Replay
from slimnet.recover.trace import Call, first_call
from slimnet.search.layout import Images


class Recording:
    """What the first glance at a state leaves for its race; one state comes after the other.

    Args:
        calls: of the modules of the networks that run, in order.
        groups: of the first state; nearly all trials begin where one of their consumers is.
    """

    def __init__(self, calls: Sequence[Call], groups: Sequence[Group]) -> None:
        self._calls = calls
        self._starts = {first_call(calls, set(group.consumers)) for group in groups}
        self._kept = Kept()
        self.order = torch.empty(0, dtype=torch.int64)
        """The numbers of the images, (images,), in the order in which they ran."""

    def begin(self) -> None:
        """Take note that another state comes."""
        self.free_memory()
        self.order = self.order[:0]

    def run(
        self, network: nn.Module, images: Images, order: Tensor, run: Callable[[Any], Any]
    ) -> list[Any]:
        """Return what ``run`` gives for each batch of these images, which runs the network on it.

        ``order`` are the images' numbers, (images,). Only what runs first is kept of a state.
        """
        if len(self.order):
            return [run(batch) for batch in images]
        self.order = order
        with Replay(network, self._calls) as replay:
            return [
                self._kept.run(replay, number, partial(run, batch), 0, self._starts)
                for number, batch in enumerate(images)
            ]

    def free_memory(self) -> None:
        """Let go of the outputs, once the race is over; it might be run again, in this order."""
        self._kept.forget()

    def outputs(self, batch: int) -> Mapping[int, Tensor]:
        """Return the outputs of calls that are kept of the batch of this number, by call."""
        return self._kept.of(batch)
