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

    ``weight`` is (channels, weights per channel). The others are (images, channels), float64 sums
    over the positions of one image's feature map A_c, with the gradient of that image's loss:
    ``count`` of elements that are not zero (‖A_c‖₀), ``activation`` Σ a, ``gradient`` Σ dL/da,
    ``product`` Σ a·dL/da.
    """

    weight: Tensor
    count: Tensor
    activation: Tensor
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
    total, images = 0.0, 0
    for inputs, labels in batches:
        with _watched(model, gates) as seen, torch.enable_grad():
            # every image's own loss: the sum, so that no gradient is divided by the batch size
            loss = functional.cross_entropy(model(inputs), labels, reduction="sum")
            calls = [(layer, out, axis) for layer, outs in seen.items() for out, axis in outs]
            gradients = torch.autograd.grad(loss, [c[1] for c in calls], allow_unused=True)
        _add_batch(sums, calls, gradients)
        total += float(loss.detach())
        images += len(labels)
    return {
        gate.layer: LayerStatistics(
            weight=channel_weights(model.get_submodule(gate.layer)).detach().double(),
            **{key: torch.cat(rows) for key, rows in sums[gate.layer].items()},
        )
        for gate in gates
    }, total / images


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
        over = [d for d in range(1, activation.ndim) if d != axis]
        values = {
            "count": (activation != 0).to(activation.dtype),
            "activation": activation,
            "gradient": gradient,
            "product": activation * gradient,
        }
        rows = {k: v.sum(over).double() if over else v.double() for k, v in values.items()}
        # a module that runs more than once has one feature map: all its positions together
        known = batch.setdefault(layer, {})
        for key, value in rows.items():
            known[key] = known[key] + value if key in known else value
    for layer, rows in batch.items():
        for key, value in rows.items():
            sums[layer][key].append(value)
