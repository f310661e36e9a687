"""torch-pruning's own pruners within an accuracy budget: the ratio by bisection, no fine-tuning."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import torch
import torch_pruning
from torch import Tensor, nn
from torch.nn import functional

STEPS = 8
EVALUATIONS = 9
IMPORTANCES = {
    "magnitude": torch_pruning.importance.MagnitudeImportance,
    "taylor": torch_pruning.importance.TaylorImportance,
    "hessian": torch_pruning.importance.HessianImportance,
}
Batches = Sequence[tuple[Tensor, Tensor]]


@dataclass(frozen=True)
class Variant:
    """A way to use torch-pruning. ``linear``: hidden linear layers lose channels as well."""

    importance: str
    whole: bool
    linear: bool

    @property
    def name(self) -> str:
        """The name in files and options, such as taylor_global_linear."""
        scope = "global" if self.whole else "local"
        return "_".join([self.importance, scope, *(["linear"] if self.linear else [])])


VARIANTS = {
    variant.name: variant
    for variant in (
        Variant(importance, whole, linear)
        for importance in IMPORTANCES
        for whole in (True, False)
        for linear in (False, True)
    )
}


@dataclass(frozen=True)
class Attempt:
    """A network pruned at a ratio, and its drop on the selection images in points.

    The drop is infinite if pruning failed; ``failure`` has the reason.
    """

    ratio: float
    network: nn.Module | None
    drop_points: float
    failure: str | None = None


def bisect_ratio(
    attempt: Callable[[float], Attempt], budget_points: float, evaluations: int = EVALUATIONS
) -> tuple[Attempt | None, list[str]]:
    """Return the attempt with the highest ratio found within the budget, and all failures.

    It halves the range from 0 to 1, and assumes that the drop rises with the ratio.
    """
    low, high, best = 0.0, 1.0, None
    failures = []
    for _ in range(evaluations):
        tried = attempt((low + high) / 2)
        if tried.failure is not None:
            failures.append(f"ratio {tried.ratio:.3f}: {tried.failure}")
        if tried.drop_points <= budget_points:
            low, best = tried.ratio, tried
        else:
            high = tried.ratio
    return best, failures


def prune(
    model: nn.Module, example: Tensor, batches: Batches, variant: Variant, ratio: float
) -> nn.Module:
    """Return a copy of the model pruned by torch-pruning in 8 steps; the model is not changed.

    Gradients are computed anew before each step.

    Raises:
        Exception: any error of torch-pruning.
    """
    slim = copy.deepcopy(model)
    pruner = torch_pruning.pruner.BasePruner(
        slim,
        (example,),
        importance=IMPORTANCES[variant.importance](),
        global_pruning=variant.whole,
        pruning_ratio=ratio,
        iterative_steps=STEPS,
        ignored_layers=ignored_layers(slim, variant),
        # new dicts, because all pruners of a process share the defaults
        in_channel_groups={},
        out_channel_groups={},
        num_heads={},
    )
    for _ in range(STEPS):
        set_gradients(slim, batches, variant.importance)
        pruner.step()
    slim.zero_grad(set_to_none=True)
    _require_output(model, slim, example)
    return slim.eval()


def ignored_layers(model: nn.Module, variant: Variant) -> list[nn.Module]:
    """Return the output layer, and all linear layers unless the variant prunes them."""
    layers = [m for m in model.modules() if isinstance(m, (nn.Conv2d, nn.Linear))]
    whole = [] if variant.linear else [m for m in layers if isinstance(m, nn.Linear)]
    return [*whole, layers[-1]]


def has_hidden_linear(model: nn.Module) -> bool:
    """Return whether a network has linear layers besides its output layer."""
    return sum(isinstance(module, nn.Linear) for module in model.modules()) > 1


def set_gradients(model: nn.Module, batches: Batches, importance: str) -> None:
    """Change the model: set the gradients that the importance reads; none for magnitude.

    Taylor reads the gradient of the mean loss. Hessian reads the mean of the squared gradients of
    single images. torch-pruning has ``accumulate_grad`` for this, but its version 1.6.1 stores the
    last image only.
    """
    if importance == "magnitude":
        return
    parameters = [p for p in model.parameters() if p.requires_grad]
    images = sum(len(labels) for _, labels in batches)
    power = 1
    if importance == "hessian":
        batches, power = list(one_by_one(batches)), 2
    sums = [torch.zeros_like(parameter) for parameter in parameters]
    for inputs, labels in batches:
        loss = functional.cross_entropy(model(inputs), labels, reduction="sum")
        for total, gradient in zip(sums, torch.autograd.grad(loss, parameters), strict=True):
            total += gradient**power
    for parameter, total in zip(parameters, sums, strict=True):
        parameter.grad = total / images


def one_by_one(batches: Batches) -> Iterable[tuple[Tensor, Tensor]]:
    """Yield the images of all batches as batches of one."""
    for inputs, labels in batches:
        for number in range(len(labels)):
            yield inputs[number : number + 1], labels[number : number + 1]


def _require_output(model: nn.Module, slim: nn.Module, example: Tensor) -> None:
    with torch.no_grad():
        expected, got = model(example), slim(example)
    if got.shape != expected.shape or not bool(got.isfinite().all()):
        raise RuntimeError(f"the pruned network gives {tuple(got.shape)}, or no finite numbers")
