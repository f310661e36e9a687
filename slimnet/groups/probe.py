"""A stirred copy of a network, on which removals are tried before any of them is believed in."""

from __future__ import annotations

import copy
import os
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
import torch_pruning
from torch import Tensor, nn

from slimnet.groups.mask import masked
from slimnet.groups.proof import TOLERANCE, relative_error
from slimnet.groups.slim import apply_plan, slim_copy
from slimnet.measure import forward, in_float64, output_tensors
from slimnet.records import Plan

STIRRING = 0.3
RIGHT_SHARE = 1e-3  # of the change that a removal makes, what may be off
ROUNDING = 1e-11  # of the output's scale, what float64 may make of it
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
        self._model = copy.deepcopy(model).double().eval()
        self._inputs = in_float64(example)
        _stir(self._model, seed)
        self._output = self._run(self._model)
        if not all(bool(part.isfinite().all()) for part in self._output):
            self._model = copy.deepcopy(model).double().eval()
            self._output = self._run(self._model)
        self._trains = _training_error(copy.deepcopy(self._model), self._inputs) is None

    def objection(self, plan: Plan, tolerance: float = TOLERANCE) -> str:
        """Return in plain words why this removal is not right; empty where slim equals masked.

        ``tolerance`` is the share of the output's scale that may be off. Less may be where the
        removal changes next to nothing, which is to be right as well.
        """
        try:
            slim = apply_plan(self._copy(plan), plan)
            found = self._run(slim)
        except Exception as error:
            # whatever the network's own code raises on smaller shapes means: not prunable
            return f"the network's own code does not follow a smaller width{_where(error)}"
        with masked(self._model, plan):
            expected = self._run(self._model)
        if [part.shape for part in found] != [part.shape for part in expected]:
            return "it makes the network's output"
        return _difference(found, expected, self._output, tolerance)

    def objection_in_training(self, plan: Plan) -> str:
        """Return why a network slimmed in this way cannot be trained on; empty where it can.

        Also empty where the whole network cannot be trained on such inputs.
        """
        if not self._trains:
            return ""
        error = _training_error(slim_copy(self._model, plan), self._inputs)
        if error is None:
            return ""
        return f"a part that runs only in training reads its channels{_where(error)}"

    def _copy(self, plan: Plan) -> nn.Module:
        """Return a copy that shares every module which the plan leaves alone, to save time."""
        touched = {".".join(name.split(".")[:i]) for name in plan for i in range(len(name))}
        shared = [m for name, m in self._model.named_modules() if name not in {*touched, *plan, ""}]
        return copy.deepcopy(self._model, {id(module): module for module in shared})

    def _run(self, model: nn.Module) -> tuple[Tensor, ...]:
        with torch.no_grad():
            return output_tensors(forward(model, self._inputs))


def _difference(
    found: Sequence[Tensor], expected: Sequence[Tensor], whole: Sequence[Tensor], tolerance: float
) -> str:
    """Return what is wrong with the slim network's outputs, by those of masked and whole one."""
    seen = False
    for one, other, before in zip(found, expected, whole, strict=True):
        error, change = relative_error([one], [other]), relative_error([before], [other])
        if not error <= min(tolerance, max(RIGHT_SHARE * change, ROUNDING)):
            return (
                "removing its channels is not the same as masking them (proof in float64): "
                "behind it channels are told apart by their place, as in a shuffle or a slice"
            )
        seen |= change * RIGHT_SHARE >= ROUNDING
    return "" if seen else UNSEEN


@torch.no_grad()
def _stir(model: nn.Module, seed: int) -> None:
    """Change the model in place: noise as large as fresh weights would be, on all it has."""
    generator = torch.Generator().manual_seed(seed)

    def uniform(state: Tensor) -> Tensor:
        # above zero: a variance stays one, and a scale that was next to nothing becomes one
        return torch.rand(state.shape, generator=generator, dtype=state.dtype).add_(0.5)

    for parameter in model.parameters():
        if parameter.ndim > 1:
            noise = torch.randn(parameter.shape, generator=generator, dtype=parameter.dtype)
            parameter.add_(noise, alpha=STIRRING / parameter[0].numel() ** 0.5)
        elif parameter.ndim == 1 and parameter.is_floating_point():
            parameter.add_(uniform(parameter), alpha=STIRRING)
    for name, buffer in model.named_buffers():
        if name.endswith(("running_mean", "running_var")):
            buffer.add_(uniform(buffer), alpha=STIRRING)


def _training_error(model: nn.Module, inputs: Any) -> Exception | None:
    """Change the model: run it forward and backward in train mode; return what it raised."""
    small = [p for p in model.train().parameters() if p.ndim < 2]
    for parameter in model.parameters():
        # biases and norms need all of the way back, at a fraction of the memory
        parameter.requires_grad_(parameter.ndim < 2 or not small)
    try:
        with torch.enable_grad(), torch.random.fork_rng(devices=[]):
            outputs = output_tensors(forward(model, inputs))
            torch.autograd.backward([part.sum() for part in outputs])
    except Exception as error:
        return error
    return None


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
