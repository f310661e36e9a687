"""Statistics of channels: gathered in one pass, forward and, where asked for, backward."""

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from slimnet.execution import channel_axis, channel_weights, watching
from slimnet.groups import Gate
from slimnet.load import attributes_kept
from slimnet.records import Batches
from slimnet.tasks import CLASSIFICATION, Task


@dataclass(frozen=True)
class LayerStatistics:
    """Statistics of the channels of one layer, as its gate sees them.

    All but ``weight`` and ``prediction`` are (images, channels) float64: sums over the positions
    of one image's feature map A_c, with the gradient of that image's loss. Sums that nobody asked
    for are empty.

    Args:
        weight: (channels, weights per channel) float64.
        prediction: (images,) int64, the class that the network gives; empty for a task of your own.
        elements: how many elements the map has.
        count: how many are not zero, ‖A_c‖₀.
        positive: how many are above zero.
        activation: Σ a.
        absolute: Σ|a|.
        square: Σ a².
        gradient: Σ dL/da.
        product: Σ a·dL/da.
    """

    weight: Tensor
    prediction: Tensor
    elements: Tensor
    count: Tensor
    positive: Tensor
    activation: Tensor
    absolute: Tensor
    square: Tensor
    gradient: Tensor
    product: Tensor


EVERY_SUM = tuple(field.name for field in fields(LayerStatistics))[2:]
OF_GRADIENTS = frozenset({"gradient", "product"})


def gather_statistics(
    model: nn.Module,
    gates: Iterable[Gate],
    batches: Batches,
    sums: Collection[str] = EVERY_SUM,
    task: Task = CLASSIFICATION,
    weights_of: nn.Module | None = None,
) -> tuple[dict[str, LayerStatistics], Tensor]:
    """Run the model once over the batches, backward too if ``sums`` need it; it is not changed.

    Args:
        model: the network.
        gates: where to look.
        batches: the images.
        sums: the fields of the statistics to gather.
        task: what the network is for.
        weights_of: the network whose weights count, where ``model`` is its folded copy.

    Returns:
        Statistics by layer name, and each image's loss, (images,) float64, in nats.
    """
    gates = list(gates)
    gatherer = _Gatherer(model, gates, sums, task)
    parts = [gatherer.run(batch) for batch in batches]
    prediction = torch.cat([part.prediction for part in parts])

    def joined(layer: str, name: str) -> Tensor:
        rows = [part.sums[layer][name] for part in parts if name in part.sums.get(layer, {})]
        return torch.cat(rows) if rows else torch.empty(0)

    statistics = {
        gate.layer: LayerStatistics(
            weight=_weights(weights_of or model, gate.layer),
            prediction=prediction,
            **{name: joined(gate.layer, name) for name in EVERY_SUM},
        )
        for gate in gates
    }
    return statistics, torch.cat([part.losses for part in parts])


def _weights(model: nn.Module, layer: str) -> Tensor:
    return channel_weights(model.get_submodule(layer)).detach().double()


@dataclass(frozen=True)
class _BatchSums:
    """Of one batch: sums by layer and name, losses in nats, and predicted classes, by image."""

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


class _Gatherer:
    """Gathers sums batch by batch; the model is not changed."""

    def __init__(
        self, model: nn.Module, gates: Sequence[Gate], sums: Collection[str], task: Task
    ) -> None:
        self._model, self._names, self._task = model, sums, task
        self._layer_of = {gate.module: gate.layer for gate in gates}
        self._overwritten = False

    def run(self, batch: Any) -> _BatchSums:
        """Return the sums of one batch."""
        evaluate = partial(self._task.evaluate, self._model, batch)
        images, sums = self._task.images(batch), dict[str, dict[str, Tensor]]()

        def add(layer: str, output: Tensor, gradient: Tensor | None, axis: int) -> None:
            # a module that runs more than once has one feature map: all its positions together
            known = sums.setdefault(layer, {})
            for name, rows in sums_of(output, gradient, axis, self._names).items():
                value = by_image(rows, images)
                known[name] = known[name] + value if name in known else value

        gather = self._backward if OF_GRADIENTS & set(self._names) else self._forward
        losses, classes = gather(evaluate, add)
        return _BatchSums(sums, losses.detach().double(), classes)

    @torch.no_grad()
    def _forward(
        self, evaluate: Callable[[], tuple[Tensor, Tensor]], add: Callable[..., None]
    ) -> tuple[Tensor, Tensor]:
        def after(name: str, module: nn.Module, _: Tensor, output: Tensor) -> None:
            add(self._layer_of[name], output, None, channel_axis(module, output))

        with watching(self._model, self._layer_of, after):
            return evaluate()

    def _backward(
        self, evaluate: Callable[[], tuple[Tensor, Tensor]], add: Callable[..., None]
    ) -> tuple[Tensor, Tensor]:
        with torch.enable_grad(), attributes_kept(self._model):
            (loss, classes), calls = self._recorded(evaluate)
            if any(call.output._version != call.version for call in calls):
                # a later module works in place, such as a ReLU: from now on it gets a copy
                self._overwritten = True
                (loss, classes), calls = self._recorded(evaluate)
            # the sum, so that no image's gradient is divided by the batch size
            gradients = torch.autograd.grad(
                loss.sum(), [call.output for call in calls], allow_unused=True
            )
        for call, gradient in zip(calls, gradients, strict=True):
            add(call.layer, call.output.detach(), gradient, call.axis)
        return loss, classes

    def _recorded(
        self, evaluate: Callable[[], tuple[Tensor, Tensor]]
    ) -> tuple[tuple[Tensor, Tensor], list[_Call]]:
        """Return what ``evaluate`` gives and every call at a gate; the outputs need gradients."""
        calls: list[_Call] = []

        def after(name: str, module: nn.Module, _: Tensor, output: Tensor) -> Tensor:
            first = not output.requires_grad
            if first:
                output = output.requires_grad_()
            axis = channel_axis(module, output)
            calls.append(_Call(self._layer_of[name], output, axis, output._version))
            # nothing may work in place on the tensor where gradients begin
            return output.clone() if first or self._overwritten else output

        with watching(self._model, self._layer_of, after):
            return evaluate(), calls


def sums_of(
    activation: Tensor, gradient: Tensor | None, axis: int, names: Collection[str]
) -> dict[str, Tensor]:
    """Return the sums of one call's output over positions, (rows, channels) float64 each.

    A row is an entry of the first axis; see ``by_image`` for rows that are no images. Without a
    gradient its sums are zeros. See ``LayerStatistics`` for the meaning of each name.
    """
    over = [d for d in range(1, activation.ndim) if d != axis]
    rows, channels = activation.shape[0], activation.shape[axis]

    def total(values: Tensor) -> Tensor:
        return values.sum(over).double() if over else values.double()

    def count() -> Tensor:
        # signs are -1, 0 and 1: their sums give both counts, several times faster than comparisons
        return total(activation.sign().abs_())

    def square() -> Tensor:
        # about a point near the mean, then moved to zero: float32 would lose a small variance
        count, sums = elements(), total(activation)
        centre = (sums / count).to(activation.dtype)
        shape = [n if d in (0, axis) else 1 for d, n in enumerate(activation.shape)]
        around = total((activation - centre.reshape(shape)).square_())
        return around + centre.double() * (2 * sums - count * centre.double())

    def elements() -> Tensor:
        each = activation[0].numel() // channels
        return torch.full((rows, channels), each, dtype=torch.float64)

    zeros = torch.zeros(rows, channels, dtype=torch.float64)
    ways: dict[str, Callable[[], Tensor]] = {
        "elements": elements,
        "count": count,
        "positive": lambda: (count() + total(activation.sign())) / 2,
        "activation": lambda: total(activation),
        "absolute": lambda: total(activation.abs()),
        "square": square,
        "gradient": lambda: zeros if gradient is None else total(gradient),
        "product": lambda: zeros if gradient is None else total(activation * gradient),
    }
    return {name: ways[name]() for name in names if name in ways}


def by_image(rows: Tensor, images: int) -> Tensor:
    """Return sums (rows, channels) as (images, channels).

    Rows may be parts of images, such as windows, those of the first image first. Where rows are
    no parts of images, such as tokens, each image gets an equal share of the sum over them.
    """
    if len(rows) == images:
        return rows
    if len(rows) % images == 0:
        return rows.reshape(images, -1, rows.shape[1]).sum(1)
    return (rows.sum(0) / images).expand(images, -1)
