"""Replay: run a network from the first module that a trial changes, on recorded outputs.

Calls of modules are numbered in the order in which they begin. A call that has ended before the
first changed one begins gives what was recorded, whole: neither it nor anything inside it runs.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from slimnet.execution.states import replaced


@dataclass(frozen=True)
class Change:
    """New values of a network's parameters and buffers by name, and the first call they reach."""

    values: Mapping[str, Tensor]
    start: int

    @property
    def nbytes(self) -> int:
        """How many bytes the values take."""
        return sum(value.nbytes for value in self.values.values())


@dataclass(frozen=True)
class Call:
    """One call of a module. Calls inside it have the numbers up to ``end``, not included.

    ``overwritten`` says that something later works in place on its output. ``replayable`` is False
    if the call returns anything but one tensor, changes an argument in place, or stores something
    on a module.
    """

    module: str
    end: int
    replayable: bool
    overwritten: bool


@torch.no_grad()
def trace_calls(model: nn.Module, run: Callable[[], object]) -> tuple[Call, ...]:
    """Return the calls of the model's modules while ``run`` runs it; it is not changed.

    Empty where the modules cannot be wrapped (compiled or scripted ones).
    """
    names: list[str] = []
    ends: dict[int, int] = {}
    in_place: set[int] = set()
    leaving: set[int] = set()
    outputs: dict[int, tuple[Any, int]] = {}

    def watch(name: str, forward: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        number = len(names)
        names.append(name)
        given = [(t, t._version) for t in (*args, *kwargs.values()) if isinstance(t, Tensor)]
        before = _own_values(forward)
        output = forward(*args, **kwargs)
        if _own_values(forward) != before or any(n in leaving for n in range(number, len(names))):
            leaving.add(number)
        if any(tensor._version != version for tensor, version in given):
            in_place.add(number)
        ends[number] = len(names)
        outputs[number] = output, getattr(output, "_version", 0)
        return output

    below = {name for name, _ in model.named_modules() if name}
    try:
        with wrapped(model, below, watch):
            run()
    except (AttributeError, RuntimeError):
        return ()
    return tuple(
        Call(
            module=name,
            end=ends[number],
            replayable=isinstance(outputs[number][0], Tensor) and number not in in_place | leaving,
            overwritten=getattr(outputs[number][0], "_version", 0) != outputs[number][1],
        )
        for number, name in enumerate(names)
    )


def _own_values(forward: Callable[..., Any]) -> dict[str, int]:
    """Return which objects a module has as attributes of its own, by name."""
    values = vars(getattr(forward, "__self__", object))
    return {name: id(value) for name, value in values.items() if name != "forward"}


def first_call(calls: Sequence[Call], modules: Collection[str]) -> int:
    """Return the number of the first call of any of these modules.

    0 where one has no call, or where there are none.
    """
    numbers: dict[str, int] = {}
    for number, call in enumerate(calls):
        numbers.setdefault(call.module, number)
    return min((numbers.get(module, 0) for module in modules), default=0)


def calls_before(calls: Sequence[Call], start: int) -> list[int]:
    """Return the calls that give what was recorded in a replay from call ``start``."""
    needed, number = [], 0
    while number < start:
        call = calls[number]
        if call.end <= start and call.replayable:
            needed.append(number)
            number = call.end
        else:
            number += 1
    return needed


@contextmanager
def wrapped(model: nn.Module, names: Collection[str], call: Callable[..., Any]) -> Iterator[None]:
    """Change the model for the time of the block: these modules' calls go through ``call``.

    ``call`` gets the module's name, its own forward, and the arguments.

    Raises:
        AttributeError: a module cannot be wrapped, or is already; none is then.
    """
    wrapped = []
    try:
        for name, module in model.named_modules():
            if name in names:
                if "forward" in vars(module):
                    raise AttributeError("this module's forward is wrapped already")
                module.forward = partial(call, name, module.forward)
                wrapped.append(module)
        yield
    finally:
        for module in wrapped:
            del module.forward


@contextmanager
def replaying(model: nn.Module, calls: Sequence[Call]) -> Iterator[Replay]:
    """Change the model for the time of the block: its modules are recorded and replayed."""
    replay = Replay(calls)
    with wrapped(model, {call.module for call in calls}, replay.call):
        yield replay


@dataclass
class _Pass:
    """One run of the network: what it may take from ``recorded``, and what it adds to that.

    ``next`` is the number of the call to come; ``strayed`` says that another one came.
    """

    recorded: dict[int, Tensor]
    first_changed: int
    wanted: Collection[int] = ()
    unread: Collection[int] = ()
    room_bytes: float = math.inf
    next: int = 0
    strayed: bool = False


class Replay:
    """Runs a network whose modules call it; see ``replaying``.

    Every ``run`` that a method takes runs the network on one batch and returns a result.
    """

    def __init__(self, calls: Sequence[Call]) -> None:
        self._calls = calls
        self._pass = _Pass({}, 0)

    def differences(
        self, run: Callable[[], Tensor], model: nn.Module, changes: Sequence[Change]
    ) -> list[Tensor]:
        """Return by how much each change of the model changes what ``run`` gives.

        The model is as before on return. Without changes it does not run.
        """
        if not changes:
            return []
        recorded: dict[int, Tensor] = {}
        before = self.resume(run, 0, recorded, {change.start for change in changes})
        found = []
        for change in changes:
            with replaced(model, change.values):
                found.append(self.run(run, change.start, recorded) - before)
        return found

    def run(self, run: Callable[[], Any], start: int, recorded: dict[int, Tensor]) -> Any:
        """Return what ``run`` gives; calls that end before ``start`` come from ``recorded``."""
        return self._run(run, _Pass(recorded, start))

    def resume(
        self,
        run: Callable[[], Any],
        start: int,
        recorded: dict[int, Tensor],
        starts: Collection[int],
        unread: Collection[int] = (),
        room_bytes: float = math.inf,
    ) -> Any:
        """Return what ``run`` gives, and change ``recorded`` to what the next run needs.

        Args:
            run: runs the network.
            start: the first call that may have changed since ``recorded`` was filled.
            recorded: outputs by call, of the same batch. It is left with those that let a run
                begin at any of the calls ``starts``.
            starts: where the next run may begin.
            unread: of these calls only the shapes are recorded. Where there are any, the next
                ``start`` must not come before this one.
            room_bytes: how many bytes may be added; what finds no room runs again.
        """
        needed = {number for later in starts for number in calls_before(self._calls, later)}
        for number in [number for number in recorded if self._calls[number].end > start]:
            del recorded[number]
        wanted, replayed = needed - recorded.keys(), bool(recorded)
        this = _Pass(recorded, start, wanted, unread, room_bytes)
        try:
            result = self._run(run, this)
            if replayed and (this.strayed or this.next != len(self._calls)):
                # the network went another way, and may have read mere shapes there
                recorded.clear()
                result = self._run(run, _Pass(recorded, 0, wanted, unread, this.room_bytes))
            return result
        finally:
            for number in recorded.keys() - needed:
                del recorded[number]
            for number in recorded.keys() & set(unread):
                # a call that found no room runs again, and reads what comes before it
                if needed <= recorded.keys():
                    recorded[number] = _shape_of(recorded[number])
                else:
                    del recorded[number]

    @torch.no_grad()
    def find_unread(self, run: Callable[[], Sequence[Tensor]], start: int) -> frozenset[int]:
        """Return the calls before ``start`` whose outputs nothing reads in a replay from there.

        Most recorded outputs only go to modules that do not run any more. Gradients tell which
        ones reach the network's outputs. Comparisons have no gradients: so the network also runs
        with all other outputs spoilt, and must give the same. ``run`` runs it on a few images.
        """
        recorded: dict[int, Tensor] = {}
        expected, unread = self.resume(run, 0, recorded, {start}), set[int]()
        try:
            leaves = {
                number: output.detach().requires_grad_()
                for number, output in recorded.items()
                if output.is_floating_point()
            }
            recorded.update(leaves)
            with torch.enable_grad():
                outputs = [x for x in self.run(run, start, recorded) if x.requires_grad]
                ones = [torch.ones_like(output) for output in outputs]
                found = torch.autograd.grad(outputs, list(leaves.values()), ones, allow_unused=True)
            unread = {n for n, gradient in zip(leaves, found, strict=True) if gradient is None}
            same = True
            for value in (math.nan, math.inf, -math.inf):
                recorded.update({n: _shape_of(leaves[n], value) for n in unread})
                same = same and all(map(torch.equal, self.run(run, start, recorded), expected))
        except Exception:
            # the network's own code may raise anything; then nothing is known to be unread
            same = False
        return frozenset(unread) if same else frozenset()

    def _run(self, run: Callable[[], Any], this: _Pass) -> Any:
        self._pass = this
        try:
            return run()
        finally:
            self._pass = _Pass({}, 0)

    def call(self, name: str, forward: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """Return what a module gives in the present run: recorded, or by its own ``forward``."""
        this, number = self._pass, self._pass.next
        if this.strayed or number == len(self._calls) or self._calls[number].module != name:
            # the network went another way than when it was traced: from here on all of it runs
            this.strayed = True
            return forward(*args, **kwargs)
        call = self._calls[number]
        if call.end <= this.first_changed and number in this.recorded:
            this.next = call.end
            output = this.recorded[number]
            return output.clone() if call.overwritten else output
        this.next = number + 1
        result = forward(*args, **kwargs)
        if number in this.unread:
            this.recorded[number] = _shape_of(result)
        elif number in this.wanted and result.nbytes <= this.room_bytes:
            output = result.detach()
            this.recorded[number] = output.clone() if call.overwritten else output
            this.room_bytes -= result.nbytes
        return result


def _shape_of(output: Tensor, value: float = math.nan) -> Tensor:
    """Return a tensor of the same shape that takes no memory and spoils whatever reads it."""
    return output.new_full((), value).expand(output.shape)
