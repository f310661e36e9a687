"""Replay: run a network from the first module that a trial changes, on outputs recorded before it.

Calls of modules are numbered in the order in which they begin. A call that has ended before the
first changed one begins gives what was recorded, whole: neither it nor anything inside it runs.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping, Sequence
from types import TracebackType
from typing import Any

import torch
from torch import Tensor, nn

from slimnet.recover.trace import Call, calls_before, wrapped


class Replay:
    """Within its ``with`` block the model's modules can be recorded and replayed.

    The model is changed for the time of the block: each module's ``forward`` is wrapped.
    """

    def __init__(self, model: nn.Module, calls: Sequence[Call]) -> None:
        self._model = model
        self._calls = calls
        self._recorded: dict[int, Tensor] = {}
        self._wanted: Collection[int] = ()
        self._unread: Collection[int] = ()
        self._room = 0.0
        self._first_changed = 0
        self._next = 0
        self._strayed = False

    def __enter__(self) -> Replay:
        called = {call.module for call in self._calls}
        self._wrapping = wrapped(self._model, called, self._call)
        self._wrapping.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:  # fmt: skip
        self._wrapping.__exit__(kind, error, traceback)
        self._recorded.clear()

    def record(
        self,
        run: Callable[[], Any],
        starts: Collection[int],
        known: Mapping[int, Tensor] | None = None,
    ) -> Any:
        """Return what ``run`` gives, which runs the model; keep what these replays need of it.

        What is ``known`` of it, outputs by call, does not run again, unless what is inside it and
        not known is needed.
        """
        wanted = {number for start in starts for number in calls_before(self._calls, start)}
        known = known or {}
        self._wanted = wanted - known.keys()
        self._recorded = {
            number: output
            for number, output in known.items()
            if self._wanted.isdisjoint(range(number + 1, self._calls[number].end))
        }
        self._room = math.inf
        try:
            return self._run(run, first_changed=len(self._calls))
        finally:
            self._wanted = ()

    def run(self, run: Callable[[], Any], start: int) -> Any:
        """Return what the ``run`` last recorded gives, running what call ``start`` changes."""
        return self._run(run, first_changed=start)

    def resume(
        self,
        run: Callable[[], Any],
        start: int,
        kept: dict[int, Tensor],
        starts: Collection[int],
        unread: Collection[int] = (),
        room: float = math.inf,
    ) -> Any:
        """Return what ``run`` gives, from what an earlier run with ``kept`` has left in it.

        Call ``start`` is the first that may have changed since. ``kept`` is changed: it then holds
        what is needed to begin at any of the calls ``starts``, as far as there is ``room`` for that
        many more elements, and of ``unread`` the shapes alone. Where there are such, the next
        ``start`` must not come before this one.
        """
        needed = {number for later in starts for number in calls_before(self._calls, later)}
        for number in [number for number in kept if self._calls[number].end > start]:
            del kept[number]
        self._recorded, self._wanted, self._unread = kept, needed - kept.keys(), unread
        self._room = room
        replayed = bool(kept)
        try:
            result = self._run(run, first_changed=start)
            if replayed and (self._strayed or self._next != len(self._calls)):
                # it went another way, where mere shapes may have been read
                kept.clear()
                result = self._run(run, first_changed=0)
            return result
        finally:
            self._recorded, self._wanted, self._unread = {}, (), ()
            for number in kept.keys() - needed:
                del kept[number]
            for number in kept.keys() & set(unread):
                # what there was no room for runs again, and reads what comes before it
                if needed <= kept.keys():
                    kept[number] = _shape_of(kept[number])
                else:
                    del kept[number]

    @torch.no_grad()
    def find_unread(self, run: Callable[[], Sequence[Tensor]], start: int) -> frozenset[int]:
        """Return the calls before ``start`` whose outputs nothing reads that runs in a replay.

        Most of what was recorded is only handed on to modules that do not run any more: what
        reaches the network's outputs has gradients. What they do not tell of, such as a
        comparison, is found out by spoiling the rest. ``run`` runs the network on a few images.
        """
        expected, unread = self.record(run, {start}), set[int]()
        try:
            leaves = {
                number: output.detach().requires_grad_()
                for number, output in self._recorded.items()
                if output.is_floating_point()
            }
            self._recorded.update(leaves)
            with torch.enable_grad():
                outputs = [output for output in self.run(run, start) if output.requires_grad]
                ones = [torch.ones_like(output) for output in outputs]
                found = torch.autograd.grad(outputs, list(leaves.values()), ones, allow_unused=True)
            unread = {n for n, gradient in zip(leaves, found, strict=True) if gradient is None}
            same = True
            for value in (math.nan, math.inf, -math.inf):
                self._recorded.update({n: _shape_of(leaves[n], value) for n in unread})
                same = same and all(map(torch.equal, self.run(run, start), expected))
        except Exception:
            # whatever the network's own code raises means the same: that cannot be told
            same = False
        self._recorded.clear()
        return frozenset(unread) if same else frozenset()

    def _run(self, run: Callable[[], Any], first_changed: int) -> Any:
        self._next, self._strayed, self._first_changed = 0, False, first_changed
        return run()

    def _call(self, name: str, forward: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        number = self._next
        if self._strayed or number == len(self._calls) or self._calls[number].module != name:
            # the network went another way than when it was traced: from here on all of it runs
            self._strayed = True
            return forward(*args, **kwargs)
        call = self._calls[number]
        if call.end <= self._first_changed and number in self._recorded:
            self._next = call.end
            output = self._recorded[number]
            return output.clone() if call.overwritten else output
        self._next = number + 1
        result = forward(*args, **kwargs)
        if number in self._unread:
            self._recorded[number] = _shape_of(result)
        elif number in self._wanted and result.numel() <= self._room:
            kept = result.detach()
            self._recorded[number] = kept.clone() if call.overwritten else kept
            self._room -= result.numel()
        return result


def _shape_of(output: Tensor, value: float = math.nan) -> Tensor:
    """Return something of the same shape that takes no memory and spoils what reads it."""
    return output.new_full((), value).expand(output.shape)
