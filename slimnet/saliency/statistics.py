"""What is known of the channels of each layer after a pass over the calibration images."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass, replace

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

    @property
    def elements_held(self) -> int:
        """How many numbers are in memory, the weights aside."""
        return sum(getattr(self, name).numel() for name in EVERY_SUM)

    def of_images(self, images: Tensor) -> LayerStatistics:
        """Return what is known of these images, by their places; none for sums not gathered."""
        prediction = self.prediction[images] if len(self.prediction) else self.prediction
        return replace(self._changed(lambda sums: sums[images]), prediction=prediction)

    def of_channels(self, channels: Tensor) -> LayerStatistics:
        """Return what is known of these channels, int64, in this order."""
        return replace(self._changed(lambda sums: sums[:, channels]), weight=self.weight[channels])

    def renewed(
        self, images: Tensor, newer: LayerStatistics, sums: Collection[str] = EVERY_SUM
    ) -> LayerStatistics:
        """Return these with the sums, or those named, of some images from ``newer``, (images,)."""
        put = {name: getattr(newer, name) for name in sums if len(getattr(self, name))}
        prediction = self.prediction
        if len(prediction):
            prediction = prediction.index_copy(0, images, newer.prediction)
        return replace(
            self,
            weight=newer.weight,
            prediction=prediction,
            **{name: getattr(self, name).index_copy(0, images, new) for name, new in put.items()},
        )

    def _changed(self, change: Callable[[Tensor], Tensor]) -> LayerStatistics:
        sums = {name: getattr(self, name) for name in EVERY_SUM}
        return replace(self, **{name: change(each) for name, each in sums.items() if len(each)})


def gather_statistics(
    model: nn.Module,
    gates: Iterable[Gate],
    batches: Batches,
    sums: Collection[str] = EVERY_SUM,
    task: Task = CLASSIFICATION,
) -> tuple[dict[str, LayerStatistics], Tensor]:
    """Run the model forward and backward once over the batches; it is not changed.

    With ``sums`` only these fields of the statistics are gathered; the others are empty.

    Returns:
        Statistics by layer name, and each image's loss, (images,) float64, in nats.
    """
    gates = list(gates)
    gathering = Gathering(model, gates, sums, task)
    return join_batches(model, gates, [gathering.run(batch) for batch in batches])


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
