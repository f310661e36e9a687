"""One forward and backward pass over the calibration images, and what every metric needs of it."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.hooks import RemovableHandle

from slimnet.groups import Gate, channel_weights
from slimnet.records import Batches


@dataclass(frozen=True)
class LayerStatistics:
    """What is known of the channels of one layer, where its gates see them.

    ``weight`` is (channels, weights per channel); ``prediction`` (images,) int64 is the class that
    the network gives. The others are (images, channels), float64 sums over the positions of one
    image's feature map A_c, with the gradient of that image's loss: ``elements`` of the map,
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


def gather_statistics(
    model: nn.Module, gates: Iterable[Gate], batches: Batches
) -> tuple[dict[str, LayerStatistics], float]:
    """Run the model forward and backward once over the batches; it is not changed.

    Returns:
        Statistics by layer name, and the mean cross-entropy of the pass in nats.
    """
    gates = list(gates)
    sums: dict[str, dict[str, list[Tensor]]] = {g.layer: defaultdict(list) for g in gates}
    predictions: list[Tensor] = []
    total = 0.0
    for inputs, labels in batches:
        with _watched(model, gates) as seen, torch.enable_grad():
            # every image's own loss: the sum, so that no gradient is divided by the batch size
            output = model(inputs)
            loss = functional.cross_entropy(output, labels, reduction="sum")
            calls = [(layer, out, axis) for layer, outs in seen.items() for out, axis in outs]
            gradients = torch.autograd.grad(loss, [c[1] for c in calls], allow_unused=True)
        _add_batch(sums, calls, gradients)
        total += float(loss.detach())
        predictions.append(output.detach().argmax(1))
    prediction = torch.cat(predictions)
    return {
        gate.layer: LayerStatistics(
            weight=channel_weights(model.get_submodule(gate.layer)).detach().double(),
            prediction=prediction,
            **{key: torch.cat(rows) for key, rows in sums[gate.layer].items()},
        )
        for gate in gates
    }, total / len(prediction)


@contextmanager
def _watched(
    model: nn.Module, gates: Iterable[Gate]
) -> Iterator[dict[str, list[tuple[Tensor, int]]]]:
    """Collect the output of every gate's module: layer name -> [(tensor, channel axis)]."""
    seen: dict[str, list[tuple[Tensor, int]]] = defaultdict(list)
    handles: list[RemovableHandle] = []

    def watch(layer: str, module: nn.Module, _: object, output: Tensor) -> Tensor:
        axis = output.ndim - 1 if isinstance(module, nn.Linear) else 1
        if not output.requires_grad:
            output = output.requires_grad_()
        seen[layer].append((output, axis))
        # an in-place ReLU that follows must not overwrite what was seen
        return output.clone()

    try:
        for gate in gates:
            module = model.get_submodule(gate.module)
            handles.append(module.register_forward_hook(partial(watch, gate.layer)))
        yield seen
    finally:
        for handle in handles:
            handle.remove()


def _add_batch(
    sums: dict[str, dict[str, list[Tensor]]],
    calls: list[tuple[str, Tensor, int]],
    gradients: tuple[Tensor | None, ...],
) -> None:
    batch: dict[str, dict[str, Tensor]] = {}
    for (layer, output, axis), found in zip(calls, gradients, strict=True):
        activation = output.detach()
        gradient = torch.zeros_like(activation) if found is None else found
        rows = _sums(activation, gradient, axis)
        # a module that runs more than once has one feature map: all its positions together
        known = batch.setdefault(layer, {})
        for key, value in rows.items():
            known[key] = known[key] + value if key in known else value
    for layer, rows in batch.items():
        for key, value in rows.items():
            sums[layer][key].append(value)


def _sums(activation: Tensor, gradient: Tensor, axis: int) -> dict[str, Tensor]:
    """Return what one call of a module adds to the statistics, each (images, channels) float64."""
    over = [d for d in range(1, activation.ndim) if d != axis]

    def total(values: Tensor) -> Tensor:
        return values.sum(over).double() if over else values.double()

    # signs are -1, 0 and 1: their sums give both counts, several times faster than comparisons
    signs = activation.sign()
    count = total(signs.abs())
    sums = {
        "count": count,
        "positive": (count + total(signs)) / 2,
        "activation": total(activation),
        "absolute": total(activation.abs()),
        "gradient": total(gradient),
        "product": total(activation * gradient),
    }
    elements = torch.full_like(count, activation[0].numel() // activation.shape[axis])
    # squares about a point near the mean, then moved to zero: float32 would lose a small variance
    centre = (sums["activation"] / elements).to(activation.dtype)
    shape = [n if d in (0, axis) else 1 for d, n in enumerate(activation.shape)]
    around = total((activation - centre.reshape(shape)).square_())
    centre = centre.double()
    square = around + centre * (2 * sums["activation"] - elements * centre)
    return {**sums, "elements": elements, "square": square}
