"""Classification, agreement with the original, or the task of the user's file."""

from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional

from slimnet.data import IndexedBatches, check_pair, class_scores, single_images
from slimnet.errors import InputError
from slimnet.load import import_file, inference
from slimnet.options import BudgetOptions, TaskOptions
from slimnet.records import Batch, Batches, ClassDrop, Drop, Split, Splits
from slimnet.tasks.calls import CallBatch, call_plainly
from slimnet.tasks.classes import (
    METHOD,
    balanced_drop,
    balanced_p_value,
    balanced_percent,
    class_drops,
    effective_images,
    evaluate_balanced_drop,
    largest_share,
)
from slimnet.tasks.confirmation import paired_p_value
from slimnet.tasks.drop import (
    Quality,
    evaluate_paired_drop,
    measure_quality,
    paired_drop,
    require_better_than_chance,
)
from slimnet.tasks.task import Task


def mean_cross_entropy(model: nn.Module, batch: Batch) -> Tensor:
    """Return the mean cross-entropy of a batch in nats; the model is not changed."""
    inputs, labels = batch
    return functional.cross_entropy(class_scores(model(inputs)), labels)


def top_1_accuracy(model: nn.Module, batches: Iterable[Batch]) -> float:
    """Return the accuracy in percent; the model is not changed."""
    right = [class_scores(model(inputs)).argmax(1) == labels for inputs, labels in batches]
    return 100 * float(torch.cat(right).double().mean())


def balanced_accuracy(model: nn.Module, batches: Iterable[Batch]) -> float:
    """Return the mean recall over classes in percent; the model is not changed."""
    pairs = [(class_scores(model(x)).argmax(1) == labels, labels) for x, labels in batches]
    correct, labels = (torch.cat(parts) for parts in zip(*pairs, strict=True))
    return balanced_percent(correct, labels)


class Classification(Task):
    """Cross-entropy and top-1 accuracy of a network with (N, classes) scores for one tensor.

    Of a network with one output it is the binary cross-entropy, see ``class_scores``. Batches are
    (inputs (images, ...), labels (images,) int64). Every image is evaluated on its own.
    """

    by_image: ClassVar[bool] = True

    @property
    def quantity(self) -> str:
        """See Task."""
        return "accuracy"

    def batches(self, batches: Batches) -> IndexedBatches:
        """See Task: every image on its own."""
        return single_images(batches)

    def few(self, batches: Batches) -> Batch:
        """See Task: two images."""
        inputs, labels = next(iter(batches))
        return inputs[:2], labels[:2]

    def labels(self, batch: Batch) -> Tensor:
        """See Task."""
        return batch[1]

    def decisive(self, outputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        """See Task: the scores less their mean over the classes."""
        scores = class_scores(outputs[0])
        return (scores - scores.mean(1, keepdim=True),)

    def inputs(self, model: nn.Module, batch: Batch, images: int) -> Tensor:
        """See Task."""
        return batch[0][:images]

    def evaluate(self, model: nn.Module, batch: Batch) -> tuple[Tensor, Tensor]:
        """See Task: cross-entropies in nats, and the classes with the highest scores."""
        inputs, labels = batch
        scores = class_scores(model(inputs))
        losses = functional.cross_entropy(scores, labels, reduction="none")
        return losses, scores.detach().argmax(1)

    def outputs(self, model: nn.Module, batch: Batch) -> tuple[Tensor, ...]:
        """See Task: the scores (images, classes); no loss is needed for them."""
        return (model(batch[0]),)

    def distance(
        self, outputs: tuple[Tensor, ...], wanted: tuple[Tensor, ...], temperature: float
    ) -> Tensor:
        """See Task: T² · KL(original‖model) at temperature T, the mean over images in nats.

        T² makes gradients equally long whatever the temperature (Hinton, Vinyals and Dean,
        Distilling the Knowledge in a Neural Network, 2015).
        """
        got, aims = (functional.log_softmax(class_scores(scores) / temperature, 1)
                     for (scores,) in (outputs, wanted))  # fmt: skip
        divergence = functional.kl_div(got, aims, reduction="batchmean", log_target=True)
        return temperature**2 * divergence

    def in_first_half(self, number: int, images: int, generator: torch.Generator) -> Tensor:
        """See Task: half of the images are, drawn at random."""
        return torch.rand(images, generator=generator) < 0.5

    def check(self, model: nn.Module, splits: Splits) -> Tensor:
        """See Task, and ``check_pair``."""
        return check_pair(model, splits)

    def measure(self, model: nn.Module, split: Split, confidence: float) -> Quality:
        """See Task."""
        return measure_quality(model, split)

    def require_worth(self, measured: Any, split: Split) -> None:
        """See Task: the network must be better than chance."""
        require_better_than_chance(measured, split)

    def drop(self, original: Any, slim: Any, confidence: float) -> Drop:
        """See Task, and ``paired_drop``."""
        return replace(paired_drop(original, slim, confidence), quantity=self.quantity)

    def class_drops(self, original: Any, slim: Any) -> tuple[ClassDrop, ...]:
        """See Task, and ``class_drops``."""
        return class_drops(original, slim)

    def largest_share(self, original: Quality) -> float:
        """Return how much of the score one image makes at most, 0 to 1."""
        return 1 / len(original.correct)

    def p_value(self, original: Any, slim: Any, max_drop: float) -> float:
        """See Task, and ``paired_p_value``."""
        return paired_p_value(original, slim, max_drop)

    @property
    def test_name(self) -> str:
        """See Task."""
        return "Tango's score test for paired proportions, image by image"

    def evaluate_drop(
        self, original: Any, slim: nn.Module, split: Split, confidence: float, limit_points: float,
        call: CallBatch = call_plainly,
    ) -> Drop:  # fmt: skip
        """See Task, and ``evaluate_paired_drop``: it stops once the limit is broken."""
        found = evaluate_paired_drop(original, slim, split, confidence, limit_points, call)
        return replace(found, quantity=self.quantity)


class Agreement(Classification):
    """Classification where the labels are the original network's own answers.

    The accuracy that a network loses is at most the agreement that it loses.
    """

    @property
    def quantity(self) -> str:
        """See Task."""
        return "agreement"

    def require_worth(self, measured: Any, split: Split) -> None:
        """See Task: a network always agrees with itself."""


class BalancedAccuracy(Classification):
    """Classification whose score is the mean recall over classes: rare ones count like others."""

    @property
    def quantity(self) -> str:
        """See Task."""
        return "balanced accuracy"

    def drop(self, original: Any, slim: Any, confidence: float) -> Drop:
        """See Task, and ``balanced_drop``."""
        return balanced_drop(original, slim, confidence)

    def p_value(self, original: Any, slim: Any, max_drop: float) -> float:
        """See Task, and ``balanced_p_value``."""
        return balanced_p_value(original, slim, max_drop)

    @property
    def test_name(self) -> str:
        """See Task."""
        return METHOD

    def effective_images(self, original: Any, images: int) -> int:
        """See Task: fewer than there are, where some classes are rare."""
        return effective_images(original.labels)

    def largest_share(self, original: Quality) -> float:
        """See Classification: an image of the rarest class."""
        return largest_share(original.labels)

    def evaluate_drop(
        self, original: Any, slim: nn.Module, split: Split, confidence: float, limit_points: float,
        call: CallBatch = call_plainly,
    ) -> Drop:  # fmt: skip
        """See Task, and ``evaluate_balanced_drop``: it stops once the limit is broken."""
        return evaluate_balanced_drop(original, slim, split, confidence, limit_points, call)


CLASSIFICATION = Classification(mean_cross_entropy, top_1_accuracy)
AGREEMENT = Agreement(mean_cross_entropy, top_1_accuracy)
BALANCED = BalancedAccuracy(mean_cross_entropy, balanced_accuracy)
BY_QUANTITY = {task.quantity: task for task in (CLASSIFICATION, AGREEMENT, BALANCED)}
FUNCTIONS = {"loss": "loss(model, batch)", "score": "score(model, batches)"}


def drops(
    task: Task, before: Mapping[str, Any], network: nn.Module, splits: Splits,
    options: BudgetOptions,
) -> tuple[dict[str, Drop], tuple[ClassDrop, ...]]:  # fmt: skip
    """Return the drop of a network on each split that drops are measured on, by its name.

    Also the drops of the classes that lost most, on the confirmation images, or on the selection
    images without these. ``before`` has the original's measurements. The network is not changed.
    """
    found: dict[str, Drop] = {}
    classes: tuple[ClassDrop, ...] = ()
    for split in splits.evaluated:
        confidence = options.confidence_on(split.name)
        after = task.measure(network, split, confidence)
        found[split.name] = task.drop(before[split.name], after, confidence)
        if split is (splits.confirmation or splits.selection):
            classes = task.class_drops(before[split.name], after)
    return found, classes


def choose_task(given: object, options: TaskOptions) -> Task:
    """Return the task given, else that of the file that the options name, else classification.

    Raises:
        InputError: a task of another type is given, or the file does not define both functions.
    """
    if options.score != CLASSIFICATION.quantity:
        if given is not None or options.task is not None or options.labels == "none":
            raise InputError(
                f"score {options.score} is for classification with labels; got "
                f"{'labels none' if options.labels == 'none' else 'a task'} too: leave one out"
            )
        return BALANCED
    if options.labels == "none":
        if given is not None or options.task is not None:
            raise InputError(
                "labels none is for classification, where the original's answers can stand for "
                "them; got a task too: leave one of them out"
            )
        return AGREEMENT
    if isinstance(given, Task):
        return given
    if given is not None and options.task is None:
        raise InputError(
            f"task is slimnet.Task(loss=..., score=...) or a file that defines both; got a "
            f"{type(given).__name__}"
        )
    if options.task is None:
        return CLASSIFICATION
    if not options.task.endswith(".py"):
        raise InputError(
            "task is a Python file that defines loss and score, such as task.py (without a "
            f"function's name); got {options.task!r}"
        )
    module = import_file(Path(options.task))
    if missing := [name for name in FUNCTIONS if not callable(getattr(module, name, None))]:
        raise InputError(
            f"{options.task} must define the functions {' and '.join(FUNCTIONS.values())}; "
            f"{' and '.join(missing)} is not there"
        )
    return Task(module.loss, module.score)


def mean_loss(model: nn.Module, batches: Batches, task: Task = CLASSIFICATION) -> float:
    """Return the mean of the task's loss over all images, in nats; the model is not changed."""
    total, images = 0.0, 0
    with inference(model):
        for batch in batches:
            losses = task.losses(model, batch)
            total += float(losses.double().sum())
            images += len(losses)
    return total / images
