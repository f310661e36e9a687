"""A stirred copy of a network, on which removals are tried before any of them is believed in."""

from __future__ import annotations

import copy
import os
import traceback
from collections.abc import Sequence
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import torch
import torch_pruning
from torch import Tensor, nn

from slimnet.errors import InputError
from slimnet.groups.faint import faint_groups
from slimnet.groups.group import Group
from slimnet.groups.mask import masked
from slimnet.groups.proof import TOLERANCE, float64_output, relative_error, require_repeats
from slimnet.groups.slim import apply_plan
from slimnet.groups.stir import stir
from slimnet.groups.training_pass import training_error
from slimnet.load import copied_in
from slimnet.measure import forward, in_float64, output_tensors
from slimnet.records import Plan

RIGHT_SHARE = 1e-3  # of the change that a removal makes, what may be off
ROUNDING = 1e-11  # of the output's scale, what float64 may make of it in a deep network
VISIBLE = 1e-12  # of the output's scale, the least change that proves anything
UNSEEN = "the network's output does not, or hardly, depend on it, so nothing can be proven"
LIBRARIES = tuple(
    f"{folder}{os.sep}"
    for folder in (*torch.__path__, *torch_pruning.__path__, Path(__file__).parents[1])
)


class Probe:
    """A copy of a network in float64, with noise on every weight; the network is not changed.

    Without the noise a layer scale of 1e-6, a head that begins at zero or a dead channel would
    hide a wrong removal. Where the noise ruins the network, the copy keeps the weights it had.
    """

    def __init__(self, model: nn.Module, example: Any, seed: int) -> None:
        """Make the copy, in eval mode.

        Raises:
            InputError: the network does not run in float64.
        """
        self._example = example
        self._inputs = in_float64(copy.deepcopy(example))
        self._model = copied_in(model, torch.float64).eval()
        self._repeats = False  # known to give the same output twice
        stir(self._model, seed)
        try:
            self._output = float64_output(self._model, self._inputs)
            ruined = not all(bool(part.isfinite().all()) for part in self._output)
        except InputError:
            ruined = True
        if ruined:
            self._model = copied_in(model, torch.float64).eval()
            self._output = float64_output(self._model, self._inputs)

    def require_repeats(self) -> None:
        """Check that the network gives the same output twice; asked again, it knows.

        Raises:
            InputError: it does not.
        """
        if not self._repeats:
            require_repeats(self._model, self._inputs, self._output)
        self._repeats = True

    def objection(self, plan: Plan, tolerance: float = TOLERANCE) -> str:
        """Return in plain words why this removal is not right; empty where slim equals masked.

        ``tolerance`` is the share of the output's scale that may be off. Less may be where the
        removal changes next to nothing, which is to be right as well.

        Raises:
            InputError: the network gives another output each time.
        """
        try:
            slim = apply_plan(self._copy(plan), plan)
            found = self._run(slim)
        except Exception as error:
            # whatever the network's own code raises on smaller shapes means: not prunable
            return f"the network's own code does not follow a smaller width{_where(error)}"
        del slim  # of a large network, gigabytes
        with masked(self._model, plan):
            expected = self._run(self._model)
        if text := _difference(found, expected, self._output, tolerance):
            self.require_repeats()  # what is right repeats itself; a pass of a large one is long
        return text

    def objection_in_training(self, plan: Plan) -> str:
        """Return why a network slimmed in this way cannot be trained on; empty where it can.

        Also empty where the whole network cannot be trained on such inputs.
        """
        cut = partial(apply_plan, plan=plan)
        error = training_error(self._model, self._inputs, cut)
        if error is None or not self._trains:
            return ""
        return f"a part that runs only in training reads its channels{_where(error)}"

    @cached_property
    def _trains(self) -> bool:
        return training_error(self._model, self._inputs) is None

    def faint(self, groups: Sequence[Group]) -> list[Group]:
        """Return the groups on which the output hardly depends; see ``faint_groups``."""
        return faint_groups(self._model, self._example, groups)

    def _copy(self, plan: Plan) -> nn.Module:
        """Return a copy that shares every module which the plan leaves alone, to save time."""
        touched = {".".join(name.split(".")[:i]) for name in plan for i in range(len(name))}
        own = {*touched, *plan, ""}
        shared = [module for name, module in self._model.named_modules() if name not in own]
        # cutting gives a module new parameters; the old ones stay as they are
        return copy.deepcopy(
            self._model, {id(part): part for part in [*shared, *self._model.parameters()]}
        )

    def _run(self, model: nn.Module) -> tuple[Tensor, ...]:
        with torch.no_grad():
            return output_tensors(forward(model, self._inputs))


def _difference(
    found: Sequence[Tensor], expected: Sequence[Tensor], whole: Sequence[Tensor], tolerance: float
) -> str:
    """Return what is wrong with the slim network's outputs, by those of masked and whole one."""
    if [part.shape for part in found] != [part.shape for part in expected]:
        return "it makes the network's output"
    seen = False
    for one, other, before in zip(found, expected, whole, strict=True):
        error, change = relative_error([one], [other]), relative_error([before], [other])
        if not error <= min(tolerance, max(RIGHT_SHARE * change, ROUNDING)):
            return (
                "removing its channels is not the same as masking them (proof in float64): "
                "behind it channels are told apart by their place, as in a shuffle or a slice"
            )
        seen |= change >= VISIBLE and error <= RIGHT_SHARE * change
    return "" if seen else UNSEEN


def _where(error: Exception) -> str:
    """Return ": the line of the network's code that failed", or what the error says."""
    frames = [
        frame
        for frame in traceback.extract_tb(error.__traceback__)
        if not frame.filename.startswith(LIBRARIES) and frame.line
    ]
    if frames:
        return f": {frames[-1].line} ({Path(frames[-1].filename).name}, line {frames[-1].lineno})"
    text = str(error).splitlines()[0] if str(error) else type(error).__name__
    return f": {text}"
