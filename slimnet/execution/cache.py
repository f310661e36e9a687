"""Outputs of layers, cached by batch: the next run on a batch begins at the first changed layer."""

from collections.abc import Callable, Collection, Hashable, Iterator, Mapping
from contextlib import contextmanager
from itertools import chain
from typing import Any

import torch
from torch import Tensor, nn

from slimnet.execution.removed import RemovedLayer
from slimnet.execution.replay import Replay, first_call
from slimnet.execution.running import RunningNetwork


class ActivationCache:
    """Outputs of calls by batch, never more than ``max_bytes`` of them."""

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._recorded: dict[Hashable, dict[int, Tensor]] = {}
        self._sizes: dict[Hashable, int] = {}

    @property
    def nbytes(self) -> int:
        """How many bytes are cached."""
        return sum(self._sizes.values())

    def run(
        self,
        replay: Replay,
        batch: Hashable,
        run: Callable[[], Any],
        start: int,
        starts: Collection[int],
        unread: Collection[int] = (),
    ) -> Any:
        """Return what ``run`` gives, which runs the network on the batch of this name.

        Call ``start`` is the first that may have changed since the last run on this batch; the
        next run can begin at ``starts``. See ``Replay.resume``.
        """
        recorded = self._recorded.pop(batch, {})
        self._sizes.pop(batch, None)
        room = self._max_bytes - self.nbytes - _size(recorded)
        try:
            return replay.resume(run, start, recorded, starts, unread, room)
        finally:
            self._recorded[batch], self._sizes[batch] = recorded, _size(recorded)

    def forget(self, *, but: Collection[Hashable] = ()) -> None:
        """Let go of the outputs of all batches but these."""
        for batch in self._recorded.keys() - set(but):
            del self._recorded[batch], self._sizes[batch]


def _size(recorded: Mapping[int, Tensor]) -> int:
    """Return how many bytes these outputs take; a mere shape takes next to none."""
    # modules that hand on their input put out the same memory
    distinct = {output.data_ptr(): output for output in recorded.values()}.values()
    return sum(min(output.nbytes, output.untyped_storage().nbytes()) for output in distinct)


class PrefixCache:
    """Runs one network again and again while its layers change in the order in which they run.

    Args:
        replay: of the network.
        max_bytes: how much is cached.
        few: runs the network on a few images and returns its outputs. Without it, outputs are
            cached that no later layer reads.
    """

    def __init__(
        self, replay: Replay, max_bytes: int, few: Callable[[], tuple[Tensor, ...]] | None = None
    ) -> None:
        self._replay, self._few = replay, few
        self._cache = ActivationCache(max_bytes)
        self._start, self._unread = 0, frozenset[int]()

    def begin_at(self, start: int) -> None:
        """From now on calls before ``start`` do not change."""
        if start < self._start:
            self._cache.forget()
        self._start = start
        if self._few is not None:
            self._unread = self._replay.find_unread(self._few, start)

    def run(self, batch: Hashable, run: Callable[[], Any]) -> Any:
        """Return what ``run`` gives, which runs the network on the batch of this name."""
        starts = {self._start}
        return self._cache.run(self._replay, batch, run, self._start, starts, self._unread)


class VersionRunner:
    """Runs one version of a network after the other on the same batches.

    Two versions in a row differ in few layers, and those before the first of them do not run.

    Args:
        starts: the calls at which versions may begin to differ.
        max_bytes: how much is cached.
    """

    def __init__(self, starts: Collection[int], max_bytes: int) -> None:
        self._starts = starts
        self._cache = ActivationCache(max_bytes)
        self._last: nn.Module | None = None

    @contextmanager
    def version(
        self, running: RunningNetwork
    ) -> Iterator[Callable[[int, Callable[[], Tensor]], Tensor]]:
        """Give ``call(number, run)``: ``run()`` runs this version on the batch of that number."""
        network, reached = running.folded_model, set[int]()
        changed = set() if self._last is None else changed_modules(self._last, network)
        start = first_call(running.calls, changed)
        self._last = network

        def call(batch: int, run: Callable[[], Tensor]) -> Any:
            reached.add(batch)
            with running.replay() as replay:
                return self._cache.run(replay, batch, run, start, self._starts)

        try:
            yield call
        finally:
            # the cache of the other batches is of an earlier version
            self._cache.forget(but=reached)


def changed_modules(before: nn.Module, now: nn.Module) -> set[str]:
    """Return the names of the modules that have other parameters or buffers of their own.

    A layer that was removed, or has another number of outputs, has changed too.
    """
    known, new = dict(_tensors(before)), dict(_tensors(now))
    tensors = {
        name.rpartition(".")[0]
        for name in known.keys() | new.keys()
        if name not in known or name not in new or not torch.equal(known[name], new[name])
    }
    kinds = dict(_kinds(before))
    return tensors | {name for name, kind in _kinds(now) if kinds.get(name) != kind}


def _kinds(model: nn.Module) -> Iterator[tuple[str, tuple[object, object]]]:
    """Yield for each module whether it was removed, and its number of outputs."""
    for name, module in model.named_modules(remove_duplicate=False):
        yield name, (isinstance(module, RemovedLayer), getattr(module, "out_channels", None))


def _tensors(model: nn.Module) -> Iterator[tuple[str, Tensor]]:
    """Yield parameters and buffers under each of their names: any may be that of the first call."""
    return chain(
        model.named_parameters(remove_duplicate=False), model.named_buffers(remove_duplicate=False)
    )
