"""What is known of the channels of each layer after a pass over the calibration images."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from slimnet.groups import Gate, channel_weights
from slimnet.measure import CLASSIFICATION, Task
from slimnet.records import Batches
from slimnet.saliency.gathering import BatchSums, Gathering
from slimnet.saliency.sums import EVERY_SUM


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


def gather_statistics(
    model: nn.Module,
    gates: Iterable[Gate],
    batches: Batches,
    sums: Collection[str] = EVERY_SUM,
    task: Task = CLASSIFICATION,
    weights_of: nn.Module | None = None,
) -> tuple[dict[str, LayerStatistics], Tensor]:
    """Run the model forward and backward once over the batches; it is not changed.

    With ``sums`` only these fields of the statistics are gathered; the others are empty. The
    weights are those of ``weights_of`` where that is given: the same network, not folded.

    Returns:
        Statistics by layer name, and each image's loss, (images,) float64, in nats.
    """
    gates = list(gates)
    gathering = Gathering(model, gates, sums, task)
    return join_batches(weights_of or model, gates, [gathering.run(batch) for batch in batches])


def join_batches(
    model: nn.Module, gates: Iterable[Gate], parts: Sequence[BatchSums]
) -> tuple[dict[str, LayerStatistics], Tensor]:
    """Return the statistics by layer of all batches together, and each image's loss, in nats.

    The weights are those of ``model``, which is not changed.
    """
    prediction = torch.cat([part.prediction for part in parts])

    def joined(layer: str, name: str) -> Tensor:
        rows = [part.sums[layer][name] for part in parts if name in part.sums.get(layer, {})]
        return torch.cat(rows) if rows else torch.empty(0)

    return {
        gate.layer: LayerStatistics(
            weight=channel_weights(model.get_submodule(gate.layer)).detach().double(),
            prediction=prediction,
            **{name: joined(gate.layer, name) for name in EVERY_SUM},
        )
        for gate in gates
    }, torch.cat([part.losses for part in parts])
