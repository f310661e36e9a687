"""A stirred copy of a network, on which removals are tried before any of them is believed in."""

from __future__ import annotations

import copy
import os
import traceback
from collections.abc import Callable
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import torch
import torch_pruning
from torch import Tensor, nn

from slimnet.errors import InputError
from slimnet.groups.mask import masked
from slimnet.groups.proof import TOLERANCE, relative_error, steady_output
from slimnet.groups.slim import apply_plan
from slimnet.load import on_shapes
from slimnet.measure import forward, in_float64, output_tensors
from slimnet.records import Plan

STIRRING = 0.3
UNSEEN = "the network's output does not depend on it, so nothing can be proven"
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
            InputError: the network does not run in float64, or does not repeat itself.
        """
        self._model, self._inputs = _in_float64(model, example)
        _stir(self._model, seed)
        try:
            self._output = steady_output(self._model, self._inputs)
            ruined = not all(bool(part.isfinite().all()) for part in self._output)
        except InputError:
            ruined = True
        if ruined:
            self._model, self._inputs = _in_float64(model, example)
            self._output = steady_output(self._model, self._inputs)

    def objection(self, plan: Plan) -> str:
        """Return in plain words why this removal is not right; empty where slim equals masked."""
        try:
            slim = apply_plan(self._copy(plan), plan)
            found = self._run(slim)
        except Exception as error:
            # whatever the network's own code raises on smaller shapes means: not prunable
            return f"the network's own code does not follow a smaller width{_where(error)}"
        del slim  # of a large network, gigabytes
        with masked(self._model, plan):
            expected = self._run(self._model)
        if [part.shape for part in found] != [part.shape for part in expected]:
            return "it makes the network's output"
        if not relative_error(found, expected) <= TOLERANCE:
            return (
                "removing its channels is not the same as masking them (proof in float64): "
                "behind it channels are told apart by their place, as in a shuffle or a slice"
            )
        if all(torch.equal(a, b) for a, b in zip(expected, self._output, strict=True)):
            return UNSEEN
        return ""

    def objection_in_training(self, plan: Plan) -> str:
        """Return why a network slimmed in this way cannot be trained on; empty where it can.

        Also empty where the whole network cannot be trained on such inputs.
        """
        cut = partial(apply_plan, plan=plan)
        error = _training_error(self._model, self._inputs, cut)
        if error is None or not self._trains:
            return ""
        return f"a part that runs only in training reads its channels{_where(error)}"

    @cached_property
    def _trains(self) -> bool:
        return _training_error(self._model, self._inputs) is None

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


@torch.no_grad()
def _stir(model: nn.Module, seed: int) -> None:
    """Change the model in place: noise as large as fresh weights would be, on all it has."""
    generator = torch.Generator().manual_seed(seed)

    def uniform(state: Tensor) -> Tensor:
        # above zero: a variance stays one, and a scale that was next to nothing becomes one
        return torch.rand(state.shape, generator=generator, dtype=state.dtype).add_(0.5)

    for parameter in filter(torch.is_floating_point, model.parameters()):
        if parameter.ndim > 1:
            # in float32, which is made several times as fast
            noise = torch.randn(parameter.shape, generator=generator)
            parameter.add_(noise, alpha=STIRRING / parameter[0].numel() ** 0.5)
        elif parameter.ndim == 1:
            parameter.add_(uniform(parameter), alpha=STIRRING)
    for name, buffer in model.named_buffers():
        if name.endswith(("running_mean", "running_var")):
            buffer.add_(uniform(buffer), alpha=STIRRING)


def _in_float64(model: nn.Module, inputs: Any) -> tuple[nn.Module, Any]:
    return copy.deepcopy(model).double().eval(), in_float64(copy.deepcopy(inputs))


def _training_error(
    model: nn.Module, inputs: Any, cut: Callable[[nn.Module], nn.Module] = lambda model: model
) -> Exception | None:
    """Return what running a copy forward and backward in train mode raises, after ``cut``."""
    try:
        on_shapes(_train_once, model, inputs, cut)
    except Exception as error:
        return error
    return None


def _train_once(model: nn.Module, inputs: Any) -> None:
    """Change the model: run it forward and backward in train mode."""
    small = [p for p in model.train().parameters() if p.ndim < 2]
    for parameter in model.parameters():
        # biases and norms need all of the way back, at a fraction of the memory
        parameter.requires_grad_(parameter.ndim < 2 or not small)
    with torch.enable_grad(), torch.random.fork_rng(devices=[]):
        outputs = output_tensors(forward(model, inputs))
        torch.autograd.backward([part.sum() for part in outputs])


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
