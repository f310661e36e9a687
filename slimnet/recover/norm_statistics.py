"""BatchNorm re-calibration: means and variances of what the norms of the slim network now get."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from slimnet.errors import InputError
from slimnet.groups import first_argument
from slimnet.groups.sides import BATCH_NORMS
from slimnet.measure import CLASSIFICATION, Task
from slimnet.records import Batches
from slimnet.recover.calibration_images import CalibrationImages
from slimnet.recover.undo import copied_state, in_mode, undone_on_failure

BATCH_IMAGES = 256
MOST_ELEMENTS = 2**26
"""How many numbers a norm reads at once, at most: 256 MiB."""

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

    They become the mean and the unbiased variance of what each norm gets over all images, not a
    mean of the batches' variances. In that pass each norm works with its own batch's statistics,
    as in training (so deeper norms see what the new statistics will give them), in batches of up
    to 256 images in which the classes are mixed, or in those given where the task does not know
    single images; dropout stays off. Nothing else changes, but
    that ``num_batches_tracked`` counts the batches of this pass.

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
        if task.by_image:
            images = CalibrationImages(batches)
            size = _images_at_once(model, norms, batches, task)
            batches = images.batches(images.mixed(size), size)
        _gather(model, norms, batches, pooled, task)
        for name, found in pooled.items():
            _set_statistics(name, norms[name], found)
    return bool(pooled)


def _has_statistics(module: nn.Module) -> bool:
    return isinstance(module, BATCH_NORMS) and module.running_mean is not None


@contextmanager
def _watching(
    norms: Mapping[str, Any], watch: Callable[[str, Any, Tensor], None]
) -> Iterator[None]:
    """Call ``watch`` with each norm's name, itself and what it is about to read."""
    with ExitStack() as hooks:
        for name, norm in norms.items():
            handle = norm.register_forward_pre_hook(
                lambda norm, args, kwargs, name=name: watch(
                    name, norm, first_argument(args, kwargs)
                ),
                with_kwargs=True,
            )
            hooks.callback(handle.remove)
        yield


@torch.no_grad()
def _images_at_once(
    model: nn.Module, norms: Mapping[str, Any], batches: Batches, task: Task
) -> int:
    """Return of how many images every norm reads what may be in memory at once, 2 at least."""
    few, largest = task.few(batches), 1

    def look(_: str, __: Any, inputs: Tensor) -> None:
        nonlocal largest
        largest = max(largest, inputs.numel() // task.images(few))

    with _watching(norms, look):
        task.outputs(model, few)
    return min(BATCH_IMAGES, max(2, MOST_ELEMENTS // largest))


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

    with _watching(norms, look):
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
