"""One forward and backward pass over the calibration images, and what every metric needs of it."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from slimnet.groups import Gate, channel_weights
from slimnet.measure import CLASSIFICATION, Task
from slimnet.records import Batches

Losses = tuple[Tensor, Tensor]


@dataclass(frozen=True)
class LayerStatistics:
    """What is known of the channels of one layer, where its gates see them.

    ``weight`` is (channels, weights per channel); ``prediction`` (images,) int64 is the class that
    the network gives, empty where the task has none. The others are (images, channels), float64
    sums over the positions of one image's feature map A_c, with the gradient of that image's loss:
    ``elements`` of the map,
    ``count`` of those that are not zero (‖A_c‖₀), ``positive`` of those above zero,
    ``activation`` Σ a, ``absolute`` Σ|a|, ``square`` Σ a², ``gradient`` Σ dL/da, ``product``
    Σ a·dL/da.
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


EVERY_SUM = (
    "elements",
    "count",
    "positive",
    "activation",
    "absolute",
    "square",
    "gradient",
    "product",
)


def gather_statistics(
    model: nn.Module,
    gates: Iterable[Gate],
    batches: Batches,
    sums: Collection[str] = EVERY_SUM,
    task: Task = CLASSIFICATION,
    weights_of: nn.Module | None = None,
) -> tuple[dict[str, LayerStatistics], Tensor]:
    """Run the model forward and backward once over the batches; it is not changed.

    With ``sums`` only these fields of the statistics are gathered; the others are empty. Weights
    are those of ``weights_of``, where ``model`` only stands for it.

    Returns:
        Statistics by layer name, and each image's loss, (images,) float64, in nats.
    """
    gates = list(gates)
    rows: dict[str, dict[str, list[Tensor]]] = {g.layer: defaultdict(list) for g in gates}
    predictions: list[Tensor] = []
    losses: list[Tensor] = []
    overwritten = False
    for batch in batches:
        run = partial(task.evaluate, model, batch)
        with torch.enable_grad():
            (loss, classes), calls = _forward(model, gates, run, copies=overwritten)
            if any(call.output._version != call.version for call in calls):
                # an in-place ReLU, say, took what was seen: from now on it gets a copy
                overwritten = True
                (loss, classes), calls = _forward(model, gates, run, copies=True)
            # every image's own loss: the sum, so that no gradient is divided by the batch size
            gradients = torch.autograd.grad(
                loss.sum(), [call.output for call in calls], allow_unused=True
            )
        _add_batch(rows, calls, gradients, sums)
        losses.append(loss.detach().double())
        predictions.append(classes)
    nothing, weights_of = torch.empty(0), weights_of or model
    return {
        gate.layer: LayerStatistics(
            weight=channel_weights(weights_of.get_submodule(gate.layer)).detach().double(),
            prediction=torch.cat(predictions),
            **{
                key: torch.cat(rows[gate.layer][key]) if key in rows[gate.layer] else nothing
                for key in EVERY_SUM
            },
        )
        for gate in gates
    }, torch.cat(losses)


@dataclass(frozen=True)
class _Call:
    """The output of a gate's module in one call, its channel axis, and its version then."""

    layer: str
    output: Tensor
    axis: int
    version: int


def _forward(
    model: nn.Module, gates: Iterable[Gate], run: Callable[[], Losses], *, copies: bool
) -> tuple[Losses, list[_Call]]:
    """Return what ``run`` gives and every call of a gate's module, whose outputs need gradients.

    With ``copies`` the network goes on with copies of them, so that nothing can overwrite them.
    """
    calls: list[_Call] = []

    def watch(layer: str, module: nn.Module, _: object, output: Tensor) -> Tensor:
        first = not output.requires_grad
        if first:
            output = output.requires_grad_()
        axis = output.ndim - 1 if isinstance(module, nn.Linear) else 1
        calls.append(_Call(layer, output, axis, output._version))
        # nothing may work in place on the tensor where gradients begin
        return output.clone() if first or copies else output

    handles: list[RemovableHandle] = []
    try:
        for gate in gates:
            module = model.get_submodule(gate.module)
            handles.append(module.register_forward_hook(partial(watch, gate.layer)))
        return run(), calls
    finally:
        for handle in handles:
            handle.remove()


def _add_batch(
    rows: dict[str, dict[str, list[Tensor]]],
    calls: list[_Call],
    gradients: tuple[Tensor | None, ...],
    sums: Collection[str],
) -> None:
    batch: dict[str, dict[str, Tensor]] = {}
    for call, found in zip(calls, gradients, strict=True):
        activation = call.output.detach()
        gradient = torch.zeros_like(activation) if found is None else found
        # a module that runs more than once has one feature map: all its positions together
        known = batch.setdefault(call.layer, {})
        for key, value in _sums(activation, gradient, call.axis, sums).items():
            known[key] = known[key] + value if key in known else value
    for layer, added in batch.items():
        for key, value in added.items():
            rows[layer][key].append(value)


def _sums(
    activation: Tensor, gradient: Tensor, axis: int, asked: Collection[str]
) -> dict[str, Tensor]:
    """Return what one call of a module adds to the statistics, each (images, channels) float64."""
    over = [d for d in range(1, activation.ndim) if d != axis]

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
        images, channels = activation.shape[0], activation.shape[axis]
        each = activation[0].numel() // channels
        return torch.full((images, channels), each, dtype=torch.float64)

    ways: dict[str, Callable[[], Tensor]] = {
        "elements": elements,
        "count": count,
        "positive": lambda: (count() + total(activation.sign())) / 2,
        "activation": lambda: total(activation),
        "absolute": lambda: total(activation.abs()),
        "square": square,
        "gradient": lambda: total(gradient),
        "product": lambda: total(activation * gradient),
    }
    return {name: ways[name]() for name in asked if name in ways}
