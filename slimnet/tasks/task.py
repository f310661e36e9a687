"""A task: the purpose of a network, as two functions of the user's, and how slimnet uses them."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from slimnet.data import IndexedBatches, count_images, first_batch, whole_batches
from slimnet.records import Batches, ClassDrop, Drop, Inputs, Split, Splits
from slimnet.tasks.calls import (
    CallBatch,
    call_plainly,
    check_score,
    check_task,
    first_inputs,
    scored,
    unchanged,
    watched,
)
from slimnet.tasks.confirmation import batch_p_value
from slimnet.tasks.drop import BatchScores, batch_drop, require_score

MIN_SQUARE = 1e-12  # an output that is all zeros has no scale of its own; any small number will do


@dataclass(frozen=True)
class Task:
    """How wrong a network is on a batch, and how good it is on many batches.

    Both functions call the model as they like and must not change it. A batch is what the data
    give::

        def loss(model, batch):
            return torch.nn.functional.mse_loss(model(batch["image"]), batch["depth"])

        def score(model, batches):
            return 100 - sum(float(loss(model, batch)) for batch in batches)

        slimnet.compress(model, data, task=slimnet.Task(loss, score))

    ``loss`` and ``score`` are all that a user gives and reads. The methods are for slimnet's own
    stages: they say how a network is evaluated by whole batches, where each image of a batch counts
    as the batch's mean. ``Classification`` replaces those that know better, image by image. No
    method changes a model.

    Args:
        loss: from model and batch to a scalar tensor, the mean over the batch, with a gradient.
        score: from model and batches, which can be iterated over, to 0 to 100 points; higher is
            better. Budgets are in these points.
    """

    loss: Callable[[nn.Module, Any], Tensor]
    score: Callable[[nn.Module, Iterable[Any]], float]
    by_image: ClassVar[bool] = False  # whether images have a loss, a class and a label of their own

    @property
    def quantity(self) -> str:
        """The name of the score in reports: that of its function."""
        name = getattr(self.score, "__name__", "").strip("_").replace("_", " ")
        return name if name.replace(" ", "").isalnum() else "score"

    def batches(self, batches: Batches) -> IndexedBatches:
        """Return the data in parts that the task can evaluate on their own.

        Raises:
            InputError: there are no images.
        """
        return whole_batches(batches)

    def images(self, batch: Any) -> int:
        """Return how many images a batch holds: the length of the first tensor in it."""
        return count_images(batch)

    def few(self, batches: Batches) -> Any:
        """Return a small batch to try something on."""
        return next(iter(batches))

    def labels(self, batch: Any) -> Tensor | None:
        """Return the class of each image, (images,) int64, None where images have no class."""
        return None

    def decisive(self, outputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        """Return the outputs of a network without what makes no difference to the task."""
        return outputs

    def inputs(self, model: nn.Module, batch: Any, images: int) -> Inputs:
        """Return what the model reads for at most so many images of a batch."""
        return first_inputs(model, partial(self.loss, model, batch), images)

    def evaluate(self, model: nn.Module, batch: Any) -> tuple[Tensor, Tensor]:
        """Return the losses (images,), with gradients, and the classes (images,) int64 of a batch.

        Here every image has the mean loss of the batch. There are no classes: that tensor is empty.
        """
        loss = self.loss(model, batch).reshape(1).expand(self.images(batch))
        return loss, torch.empty(0, dtype=torch.int64)

    def losses(self, model: nn.Module, batch: Any) -> Tensor:
        """Return the loss of each image (images,), with gradients."""
        return self.evaluate(model, batch)[0]

    def loss_and_outputs(self, model: nn.Module, batch: Any) -> tuple[Tensor, tuple[Tensor, ...]]:
        """Return the mean loss of a batch and all outputs of the model that it came from."""
        value, outputs = watched(model, partial(self.loss, model, batch))
        return value.reshape(()), outputs

    def outputs(self, model: nn.Module, batch: Any) -> tuple[Tensor, ...]:
        """Run the model on a batch and return all that it put out."""
        return self.loss_and_outputs(model, batch)[1]

    def distance(
        self, outputs: tuple[Tensor, ...], wanted: tuple[Tensor, ...], temperature: float
    ) -> Tensor:
        """Return how far outputs are from those of the original, a scalar with a gradient.

        It is the mean over outputs of the squared distance, as a share of the original's mean
        square. It has no unit, and every output counts alike. Only the task knows the meaning of
        outputs, so there is no use for the temperature.
        """
        shares = [
            (one - other).square().mean() / other.square().mean().clamp_min(MIN_SQUARE)
            for one, other in zip(outputs, wanted, strict=True)
        ]
        return torch.stack(shares).mean()

    def in_first_half(self, number: int, images: int, generator: torch.Generator) -> Tensor:
        """Return which images of batch ``number`` are in the first of two halves, (images,) bool.

        Every second batch is.
        """
        return torch.tensor([number % 2 == 0]).expand(images)

    def check(self, model: nn.Module, splits: Splits) -> Inputs:
        """Return two example inputs.

        Raises:
            InputError: a split is empty, the loss fails or is none, the model is called in a way
                that cannot be exported, or one of the functions changes it.
        """
        for split in splits.all:
            first_batch(split.batches, split.name)
        with unchanged(model, "loss"):
            example = check_task(model, self.loss, splits.calibration.batches)
        check_score(self.score, model, splits.calibration.batches)
        return example

    def measure(self, model: nn.Module, split: Split, confidence: float) -> Any:
        """Return a measurement that ``drop`` takes: the score on a split and on its batches.

        Batches are only scored where there are bounds to find.
        """
        with torch.no_grad():
            whole = scored(self.score, model, split.batches)
            parts: tuple[float, ...] = ()
            if confidence > 0.5:
                parts = tuple(scored(self.score, model, [batch]) for batch in split.batches)
        return BatchScores(whole, parts, split.images, self.quantity)

    def require_worth(self, measured: Any, split: Split) -> None:
        """Refuse a network that has nothing to lose.

        Raises:
            InputError: the score is no number from 0 to 100, or next to nothing.
        """
        require_score(measured, split)

    def drop(self, original: Any, slim: Any, confidence: float) -> Drop:
        """Return the drop between two measurements on one split, with its bounds."""
        return batch_drop(original, slim, confidence)

    def class_drops(self, original: Any, slim: Any) -> tuple[ClassDrop, ...]:
        """Return the drops of the classes that lost most; none where images have no class."""
        return ()

    def effective_images(self, original: Any, images: int) -> int:
        """Return how many images of a plain mean measure a drop as well as these ``images``."""
        return images

    def p_value(self, original: Any, slim: Any, max_drop: float) -> float:
        """Return the p-value of "the true drop is above ``max_drop`` points"; see ``drop``."""
        return batch_p_value(original, slim, max_drop)

    @property
    def test_name(self) -> str:
        """The test that the p-value is of."""
        return (
            "Student's t-test over the drops of batches; approximate: it takes these drops to be "
            "about normal"
        )

    def evaluate_drop(
        self, original: Any, slim: nn.Module, split: Split, confidence: float, limit_points: float,
        call: CallBatch = call_plainly,
    ) -> Drop:  # fmt: skip
        """Return the drop of a network from a measurement of the original.

        Where it is above the limit it may be an estimate, which is above the limit as well.
        ``call`` runs the network on each batch, see ``mean_loss``; a score of the user's own runs
        it itself.
        """
        return self.drop(original, self.measure(slim, split, confidence), confidence)
