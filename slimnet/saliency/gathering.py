"""One batch forward and, where gradients are asked for, backward: the sums at every gate."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from slimnet.groups import Gate, channel_axis
from slimnet.measure import Task
from slimnet.saliency.sums import OF_GRADIENTS, by_image, sums_of


@dataclass(frozen=True)
class BatchSums:
    """Of one batch: sums by layer and name, (images, channels) each, and by image the rest.

    ``losses`` (images,) float64 are in nats; ``prediction`` (images,) int64, or empty.
    """

    sums: Mapping[str, Mapping[str, Tensor]]
    losses: Tensor
    prediction: Tensor


@dataclass(frozen=True)
class _Call:
    """The output of a gate's module in one call, its channel axis, and its version then."""

    layer: str
    output: Tensor
    axis: int
    version: int


class _Sums:
    """Sums by layer and name, of each of so many images."""

    def __init__(self, images: int) -> None:
        self._images = images
        self.by_layer: dict[str, dict[str, Tensor]] = {}

    def add(self, layer: str, found: Mapping[str, Tensor]) -> None:
        """Take in what one call of a module adds, (rows, channels) each."""
        # a module that runs more than once has one feature map: all its positions together
        known = self.by_layer.setdefault(layer, {})
        for key, rows in found.items():
            value = by_image(rows, self._images)
            known[key] = known[key] + value if key in known else value


class Gathering:
    """Gathers sums batch by batch; the model is not changed. ``asked`` names the sums."""

    def __init__(
        self, model: nn.Module, gates: Iterable[Gate], asked: Collection[str], task: Task
    ) -> None:
        self.model, self._gates, self._asked, self._task = model, list(gates), asked, task
        self._overwritten = False

    def run(self, batch: Any) -> BatchSums:
        """Return the sums of one batch; it runs backward only where somebody asks for gradients."""
        evaluate = partial(self._task.evaluate, self.model, batch)
        sums = _Sums(self._task.images(batch))
        if OF_GRADIENTS & set(self._asked):
            losses, classes = self._backward(evaluate, sums)
        else:
            losses, classes = self._forward(evaluate, sums)
        return BatchSums(sums.by_layer, losses.detach().double(), classes)

    @torch.no_grad()
    def _forward(
        self, evaluate: Callable[[], tuple[Tensor, Tensor]], sums: _Sums
    ) -> tuple[Tensor, Tensor]:
        def watch(layer: str, module: nn.Module, _: object, output: Tensor) -> None:
            sums.add(layer, sums_of(output, None, channel_axis(module, output), self._asked))

        return self._watched(watch, evaluate)

    def _backward(
        self, evaluate: Callable[[], tuple[Tensor, Tensor]], sums: _Sums
    ) -> tuple[Tensor, Tensor]:
        with torch.enable_grad():
            (loss, classes), calls = self._recorded(evaluate)
            if any(call.output._version != call.version for call in calls):
                # an in-place ReLU, say, took what was seen: from now on it gets a copy
                self._overwritten = True
                (loss, classes), calls = self._recorded(evaluate)
            # every image's own loss: the sum, so that no gradient is divided by the batch size
            gradients = torch.autograd.grad(
                loss.sum(), [call.output for call in calls], allow_unused=True
            )
        for call, gradient in zip(calls, gradients, strict=True):
            found = sums_of(call.output.detach(), gradient, call.axis, self._asked)
            sums.add(call.layer, found)
        return loss, classes

    def _recorded(
        self, evaluate: Callable[[], tuple[Tensor, Tensor]]
    ) -> tuple[tuple[Tensor, Tensor], list[_Call]]:
        """Return what ``evaluate`` gives and every call at a gate, whose outputs need gradients.

        Where they were overwritten before, the network goes on with copies of them.
        """
        calls: list[_Call] = []

        def watch(layer: str, module: nn.Module, _: object, output: Tensor) -> Tensor:
            first = not output.requires_grad
            if first:
                output = output.requires_grad_()
            calls.append(_Call(layer, output, channel_axis(module, output), output._version))
            # nothing may work in place on the tensor where gradients begin
            return output.clone() if first or self._overwritten else output

        return self._watched(watch, evaluate), calls

    def _watched(
        self, watch: Callable[..., Any], evaluate: Callable[[], tuple[Tensor, Tensor]]
    ) -> tuple[Tensor, Tensor]:
        handles = []
        try:
            for gate in self._gates:
                module = self.model.get_submodule(gate.module)
                handles.append(module.register_forward_hook(partial(watch, gate.layer)))
            return evaluate()
        finally:
            for handle in handles:
                handle.remove()
