"""A task: what a network is for. The user's own one is two functions, and its unit is the batch."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.utils import _pytree

from slimnet.errors import InputError
from slimnet.measure.batch_drop import BatchScores, batch_drop, require_score
from slimnet.measure.calls import check_score, check_task, first_inputs, scored, unchanged, watched
from slimnet.measure.forward import CallBatch, call_plainly
from slimnet.records import Batches, Drop, Inputs, Split, Splits


@dataclass(frozen=True)
class Task:
    """How wrong a network is on a batch, and how good it is on many; neither may change it.

    Both call the model as they like; a batch is what the data give. Only ``Classification`` knows
    single images; here every image of a batch counts as the batch's mean.

    Args:
        loss: from model and batch to a scalar tensor, the mean over the batch, with a gradient.
        score: from model and batches, which can be iterated over, to 0 to 100 points; higher is
            better. Budgets are in these points.
    """

    loss: Callable[[nn.Module, Any], Tensor]
    score: Callable[[nn.Module, Iterable[Any]], float]
    by_image: ClassVar[bool] = False

    @property
    def quantity(self) -> str:
        """What the score is called in reports: the function's own name."""
        name = getattr(self.score, "__name__", "").strip("_").replace("_", " ")
        return name if name.replace(" ", "").isalnum() else "score"

    def images(self, batch: Any) -> int:
        """Return how many images a batch holds: the length of the first tensor in it."""
        tensors = (x for x in _pytree.tree_leaves(batch) if isinstance(x, Tensor) and x.ndim)
        return next((len(tensor) for tensor in tensors), 1)

    def losses(self, model: nn.Module, batch: Any) -> Tensor:
        """Return the loss of each image (images,), as far as it is known; the model stays."""
        return self.loss(model, batch).reshape(1).expand(self.images(batch))

    def total_loss(self, model: nn.Module, batch: Any) -> Tensor:
        """Return the sum of the images' losses, a scalar; the model is not changed."""
        return self.losses(model, batch).sum()

    def evaluate(self, model: nn.Module, batch: Any) -> tuple[Tensor, Tensor]:
        """Return the images' losses and the classes that the model gives, none of these here."""
        return self.losses(model, batch), torch.empty(0, dtype=torch.int64)

    def watched_loss(self, model: nn.Module, batch: Any) -> tuple[Tensor, tuple[Tensor, ...]]:
        """Return the mean loss of a batch and all outputs that it came from; the model stays."""
        return watched(model, partial(self.loss, model, batch))

    def outputs(self, model: nn.Module, batch: Any) -> tuple[Tensor, ...]:
        """Run the model on a batch and return all that it gave; it is not changed."""
        return self.watched_loss(model, batch)[1]

    def few(self, batches: Batches) -> Any:
        """Return a batch to try something on."""
        return next(iter(batches))

    def inputs(self, model: nn.Module, batch: Any, images: int) -> Inputs:
        """Return what the model reads for at most so many images of a batch; it stays."""
        return first_inputs(model, partial(self.loss, model, batch), images)

    def check(self, model: nn.Module, splits: Splits) -> Inputs:
        """Return two example inputs; the model is not changed.

        Raises:
            InputError: the loss fails or is none, the model is called in a way that cannot be
                exported, or one of the functions changes it.
        """
        with unchanged(model, "loss"):
            example = check_task(model, self.loss, splits.calibration.batches)
        check_score(self.score, model, splits.calibration.batches)
        return example

    def measure(self, model: nn.Module, split: Split, confidence: float) -> Any:
        """Return the score on a split and, where there are bounds to find, on each batch.

        The model is not changed.
        """
        with torch.no_grad():
            whole = scored(self.score, model, split.batches)
            parts: tuple[float, ...] = ()
            if confidence > 0.5:
                parts = tuple(scored(self.score, model, [batch]) for batch in split.batches)
        return BatchScores(whole, parts, split.images, self.quantity)

    def drop(self, original: Any, slim: Any, confidence: float) -> Drop:
        """Return the drop between two measurements on one split, with its bounds."""
        return batch_drop(original, slim, confidence)

    def judge(
        self, original: Any, slim: nn.Module, split: Split, confidence: float, limit_points: float,
        call: CallBatch = call_plainly,
    ) -> Drop:  # fmt: skip
        """Return the drop of a network; only an estimate above the limit where it is above it.

        ``call`` runs it on each batch, see ``mean_loss``; a score of the user's own does so itself.
        """
        return self.drop(original, self.measure(slim, split, confidence), confidence)

    def require_worth(self, measured: Any, split: Split) -> None:
        """Refuse a network that has nothing to lose.

        Raises:
            InputError: the score is no number from 0 to 100, or next to nothing.
        """
        require_score(measured, split)


def require_classes(task: Task, metrics: Iterable[str]) -> None:
    """Refuse metrics that need the network to give classes, for a task that has none.

    Raises:
        InputError: there is such a metric.
    """
    asking = [name for name in metrics if name.endswith("mutual_information")]
    if asking and not task.by_image:
        raise InputError(
            f"{asking[0]} compares channels with the class that the network gives, which a task of "
            "your own does not have; leave the metric out"
        )
