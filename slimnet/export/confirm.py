"""Which state of the search is shipped: the last that the confirmation images confirm."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import fmean
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from slimnet.execution import count_parameters
from slimnet.export.int8 import FLOAT_NAME, NAME, Int8Network
from slimnet.options import BudgetOptions, OutputOptions
from slimnet.records import Confirmation, ConfirmationTest, Inputs, Split
from slimnet.search import EmptyPath, FoundState, SearchPath, unchanged_state
from slimnet.tasks import Task, confirm_in_order, confirmable_points
from slimnet.timing import RUNTIMES, TimedNetwork, measure_latency


def plan_confirmation(
    task: Task, original: Any, split: Split, options: BudgetOptions
) -> Confirmation:
    """Return the confirmation before any test.

    ``original`` is the original's measurement on the confirmation images.
    """
    return Confirmation(
        test=task.test_name,
        images=split.images,
        images_sha256=_sha256_of(split),
        confirmable_points=confirmable_points(
            task.effective_images(original, split.images), options.max_drop, options.confidence
        ),
        impossible=_why_impossible(task, original, split.images, options),
        tests=(),
    )


def _why_impossible(task: Task, original: Any, images: int, options: BudgetOptions) -> str:
    """Return why no network at all can be confirmed, "" if one that loses nothing can."""
    if task.p_value(original, original, options.max_drop) <= 1 - options.confidence:
        return ""
    return (
        f"with {images:,} confirmation images not even an unchanged network can be confirmed to be "
        f"within {options.max_drop:g} points at {100 * options.confidence:g} % confidence: "
        "give more images, a larger --max-drop, or --confidence 0.5"
    )


@dataclass(frozen=True)
class Contender:
    """A state of the search as one file: in float, or in int8."""

    state: FoundState
    int8: Int8Network | None = None

    @property
    def file(self) -> str:
        """The name of the file."""
        return FLOAT_NAME if self.int8 is None else NAME

    @property
    def network(self) -> nn.Module:
        """The network in PyTorch, or the int8 file in ONNX Runtime."""
        network = None if self.int8 is None else self.int8.network
        return self.state.network if network is None else network

    @property
    def selection_points(self) -> float:
        """The estimate of the drop on the selection images."""
        drop = None if self.int8 is None else self.int8.record.selection_drop
        return (drop or self.state.drop).points


@dataclass(frozen=True)
class Confirmer:
    """Chooses the state that is shipped, by tests in a fixed order.

    Without confirmation images (``split`` is None) a state counts as confirmed if its estimate on
    the selection images is within the budget.

    Args:
        model: the original; it is not changed.
        original: its measurement on the confirmation images.
        split: these images.
        task: defines the drop.
        example: preprocessed inputs (images, ...), to time int8 files on.
        options: the budget, and how latency is measured.
        progress: called with a sentence before each test.
    """

    model: nn.Module
    original: Any
    split: Split | None
    task: Task
    example: Inputs
    options: OutputOptions
    progress: Callable[[str], None]

    def choose(
        self,
        path: SearchPath | EmptyPath,
        make_int8: Callable[[FoundState], Int8Network] | None,
    ) -> tuple[FoundState, Int8Network | None, tuple[ConfirmationTest, ...]]:
        """Return the state to ship, its int8 network if that is confirmed, and all tests.

        Without int8 it is the last state that is confirmed. With int8 it is that, or the last one
        that is confirmed in int8, whichever is faster. Where the first is not confirmed, it is a
        copy of the original.
        """
        if make_int8 is None and self.split is None:
            return path.last(), None, ()
        made: Mapping[int, Int8Network] = {}
        contenders: Iterable[Contender] = map(Contender, path.states())
        if make_int8 is not None:
            states = list(path.states())
            made = {state.step: make_int8(state) for state in states}
            contenders = from_safe_to_aggressive(states, made)
        confirmed, tests = confirm_in_order(contenders, self._test)
        floats = [one.state for one in confirmed if one.int8 is None]
        if not floats:
            return self._unchanged(path, tests), None, tuple(tests)
        state, int8 = floats[-1], None
        in_int8 = [one for one in confirmed if one.int8 is not None and one.state in floats]
        if in_int8:
            last = in_int8[-1]
            if last.state is state or self._is_faster(made[last.state.step], made[state.step]):
                state, int8 = last.state, last.int8
        if int8 is None:
            int8 = made.get(state.step)
            if int8 is not None and int8.network is not None:
                reason = "it was not confirmed to be within the budget"
                if in_int8:
                    reason += ", and the last state confirmed in int8 is slower than slim.onnx"
                int8 = replace(int8, network=None, record=replace(int8.record, reason=reason))
        return state, int8, tuple(tests)

    def _test(self, one: Contender) -> ConfirmationTest:
        parameters, options = count_parameters(self.model), self.options
        drop, p_value = one.state.drop, math.nan
        confirmed = one.selection_points <= options.max_drop
        if self.split is not None:
            self.progress(f"confirming step {one.state.step}, {one.file}")
            measured = self.task.measure(one.network, self.split, options.confidence)
            drop = self.task.drop(self.original, measured, options.confidence)
            p_value = self.task.p_value(self.original, measured, options.max_drop)
            confirmed = p_value <= 1 - options.confidence
        return ConfirmationTest(
            step=one.state.step,
            file=one.file,
            parameters_removed_percent=100 * (1 - count_parameters(one.state.network) / parameters),
            selection_points=one.selection_points,
            drop=drop,
            p_value=p_value,
            confirmed=confirmed,
        )

    def _unchanged(
        self, path: SearchPath | EmptyPath, tests: Sequence[ConfirmationTest]
    ) -> FoundState:
        """Return the original as what was found, and why."""
        last = path.last()
        if not tests:  # the search found nothing, and says why
            return last
        first, points = tests[0], tests[0].drop.points
        reason = (
            f"the safest state that the search found could not be confirmed: it removes "
            f"{first.parameters_removed_percent:.1f} % of the parameters and drops {points:.2f} "
            f"points on {first.drop.images:,} images (p = {first.p_value:.2f}); give more images, "
            "a larger --max-drop, or --confidence 0.5"
        )
        unchanged = replace(
            last.drop, slim_percent=last.drop.original_percent, points=0.0, lower_points=0.0,
            upper_points=0.0,
        )  # fmt: skip
        return unchanged_state(self.model, unchanged, reason, last.trajectory)

    def _is_faster(self, one: Int8Network, other: Int8Network) -> bool:
        """Return whether the int8 file of one state is faster than the float file of another."""
        files = TimedNetwork(other.float_path), TimedNetwork(one.path)
        sizes = sorted(set(self.options.latency_batch))
        timed = measure_latency(RUNTIMES["ort-cpu"], files, self.example, sizes, self.options)
        return fmean(math.log(entry.speedup) for entry in timed) > 0


def from_safe_to_aggressive(
    states: Sequence[FoundState], made: Mapping[int, Int8Network]
) -> list[Contender]:
    """Return the states in float and, where there is one, in int8, by their estimates.

    An estimate counts as at least that of every state before it, and of the same state in float:
    this is known, whatever 100 noisy images say.
    """
    found: list[tuple[float, Contender]] = []
    in_float = in_int8 = -math.inf
    for state in states:
        one, int8 = Contender(state), Contender(state, made[state.step])
        in_float = max(in_float, one.selection_points)
        found.append((in_float, one))
        if made[state.step].network is not None:
            in_int8 = max(in_int8, in_float, int8.selection_points)
            found.append((in_int8, int8))
    return [one for _, one in sorted(found, key=lambda pair: pair[0])]


def _sha256_of(split: Split) -> str:
    """Return a hash that tells two sets of images apart: of their number and the first batch."""
    found = hashlib.sha256(str(split.images).encode())
    for leaf in tree_leaves(next(iter(split.batches))):
        if isinstance(leaf, Tensor):
            data = leaf.detach().contiguous().reshape(-1).view(torch.uint8)
            found.update(data.numpy().data)
    return found.hexdigest()
