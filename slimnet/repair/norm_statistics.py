"""BatchNorm re-calibration: running means and variances of the inputs that norms get now.

Torch's ``update_bn`` averages the variances of batches, which leaves out the variance between
batches; here all images count as one batch.
"""

from collections import defaultdict
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from slimnet.errors import InputError
from slimnet.execution import BATCH_NORMS, copied_state, in_mode, undone_on_failure, watching
from slimnet.load import FixedNorm
from slimnet.records import Batches
from slimnet.tasks import CLASSIFICATION, Task

BATCH_IMAGES = 256
"""A guess: a norm behind another works with the statistics of its own batch, which are close to
those of all images where the batch is large."""

MAX_ELEMENTS = 2**26
"""A norm reads 256 MiB at once, so that large images fit. It is no part of the memory budget,
since the statistics depend a little on the size of the batches."""

PROBLEM = "re-calibrating the BatchNorm statistics fails: {}"


class _Pooled:
    """Number, mean and sum of squared deviations of all values of each channel, in float64."""

    def __init__(self) -> None:
        self.calls = 0
        self.values = 0
        self.mean: Tensor = torch.zeros((), dtype=torch.float64)
        self.squares: Tensor = torch.zeros((), dtype=torch.float64)

    def add(self, values: int, mean: Tensor, variance: Tensor) -> None:
        """Merge in a batch (Chan, Golub and LeVeque, 1979)."""
        apart, total = mean.double() - self.mean, self.values + values
        self.mean = self.mean + apart * (values / total)
        between = apart.square() * (self.values * values / total)
        self.squares = self.squares + variance.double() * values + between
        self.values, self.calls = total, self.calls + 1


def recalibrate_norms(model: nn.Module, batches: Batches, task: Task = CLASSIFICATION) -> bool:
    """Change the model in place: estimate all BatchNorm running means and variances anew.

    They become the mean and the unbiased variance of each norm's input over all images. In that
    pass each norm works with the statistics of its own batch, as in training, so that deeper norms
    get inputs like those after the change. Batches hold up to 256 images of mixed classes; where
    the task does not know single images, they are those given. Dropout stays off.
    ``num_batches_tracked`` counts the batches of this pass; nothing else changes.

    Args:
        model: a network with or without BatchNorms; norms that do not run keep what they have.
        batches: calibration images.
        task: what the network is for.

    Returns:
        Whether any statistics were estimated; False where no BatchNorm with them has run.

    Raises:
        InputError: no images, the network's own code fails, or it gives NaN or infinite values.
            The model is as it was.
    """
    norms = {name: m for name, m in model.named_modules() if _has_statistics(m)}
    if not norms:
        return False
    pooled: dict[str, _Pooled] = defaultdict(_Pooled)
    before = {name: state for name, state in copied_state(model).items()
              if name.rpartition(".")[0] in norms}  # fmt: skip
    with undone_on_failure(model, before, PROBLEM), in_mode(model, training=False):
        mixed = task.batches(batches).mixed(_images_at_once(model, norms, batches, task))
        _gather(model, norms, mixed, pooled, task)
        for name, found in pooled.items():
            _set_statistics(name, norms[name], found)
    return bool(pooled)


def _has_statistics(module: nn.Module) -> bool:
    fixed = isinstance(module, FixedNorm)  # it never had statistics
    return isinstance(module, BATCH_NORMS) and not fixed and module.running_mean is not None


@torch.no_grad()
def _images_at_once(
    model: nn.Module, norms: Mapping[str, Any], batches: Batches, task: Task
) -> int:
    """Return how many images may pass at once, 2 at least: no norm reads more than MAX_ELEMENTS."""
    few, largest = task.few(batches), 1

    def look(_: str, __: Any, inputs: Tensor) -> None:
        nonlocal largest
        largest = max(largest, inputs.numel() // task.images(few))

    with watching(model, norms, before=look):
        task.outputs(model, few)
    return min(BATCH_IMAGES, max(2, MAX_ELEMENTS // largest))


@torch.no_grad()
def _gather(
    model: nn.Module,
    norms: Mapping[str, Any],
    batches: Batches,
    pooled: dict[str, _Pooled],
    task: Task,
) -> None:
    """Change the norms: run the batches, each norm with the statistics of its own input."""

    def look(name: str, norm: Any, inputs: Tensor) -> None:
        over = [d for d in range(inputs.ndim) if d != 1]
        variance, mean = torch.var_mean(inputs, over, correction=0)
        pooled[name].add(inputs.numel() // inputs.shape[1], mean, variance)
        # a norm in train mode does the same, but refuses a single value
        norm.running_mean.copy_(mean)
        norm.running_var.copy_(variance)

    with watching(model, norms, before=look):
        for batch in batches:
            task.outputs(model, batch)


@torch.no_grad()
def _set_statistics(name: str, norm: Any, pooled: _Pooled) -> None:
    variance = pooled.squares / max(1, pooled.values - 1)
    if not bool((pooled.mean.isfinite() & variance.isfinite()).all()):
        raise InputError(
            f"the BatchNorm {name} gets NaN or infinite values on the calibration images; check "
            "the weights and the preprocessing (--scale, --mean, --std)"
        )
    norm.running_mean.copy_(pooled.mean)
    norm.running_var.copy_(variance)
    if norm.num_batches_tracked is not None:
        norm.num_batches_tracked.fill_(pooled.calls)
