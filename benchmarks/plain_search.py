"""The paper's search, written plainly: the reference for the decisions and the speed of slimnet's.

One forward and backward pass for the saliencies, one forward pass for each of the k candidates,
one evaluation, all on the masked network in its original shapes (Persand et al. 2020, Algorithm 1).
"""

from __future__ import annotations

import copy
import math
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from time import perf_counter

import torch
from torch import Tensor, nn
from torch.nn import functional

from slimnet.groups.cut import mask, masked
from slimnet.groups.group import Group, plan_for
from slimnet.records.data import Batches, Split
from slimnet.tasks.classification import mean_loss
from slimnet.tasks.drop import measure_quality

Unit = tuple[int, int]
"""The number of a group, and of a unit in it."""


@dataclass(frozen=True)
class PlainStep:
    """One removal, with the accuracy after it and its seconds.

    ``sensitivity`` and ``margin``, its lead over the runner-up, are in nats.
    """

    unit: Unit
    sensitivity: float
    margin: float
    correct_percent: float
    seconds: float


def plain_search(
    model: nn.Module,
    groups: Sequence[Group],
    calibration: Batches,
    selection: Split,
    candidates: int,
) -> Iterator[PlainStep]:
    """Yield removal after removal, without end. The model is not changed."""
    model = copy.deepcopy(model)
    gone: set[Unit] = set()
    while True:
        started = perf_counter()
        loss, saliencies = _saliencies(model, groups, calibration)
        chosen = _propose(saliencies, groups, gone, candidates)
        sensitivities = []
        for unit in chosen:
            with masked(model, _plan(groups, unit)):
                sensitivities.append(mean_loss(model, calibration) - loss)
        best = min(range(len(chosen)), key=sensitivities.__getitem__)
        mask(model, _plan(groups, chosen[best]))
        gone.add(chosen[best])
        correct = measure_quality(model, selection).percent
        others = [s for number, s in enumerate(sensitivities) if number != best]
        margin = min(others, default=math.inf) - sensitivities[best]
        seconds = perf_counter() - started
        yield PlainStep(chosen[best], sensitivities[best], margin, correct, seconds)


def _plan(groups: Sequence[Group], unit: Unit) -> dict[str, dict[str, tuple[int, ...]]]:
    nothing = torch.empty(0, dtype=torch.int64)
    units = [torch.tensor([unit[1]]) if i == unit[0] else nothing for i in range(len(groups))]
    return {name: dict(sides) for name, sides in plan_for(groups, units).items()}


def _saliencies(
    model: nn.Module, groups: Sequence[Group], batches: Batches
) -> tuple[float, list[list[Tensor]]]:
    """Return the loss, and by metric and group the score of each unit: the paper's Table I."""
    scores: list[dict[str, Tensor]] = [defaultdict(lambda: torch.zeros(())) for _ in range(5)]
    total, images = 0.0, 0
    for inputs, labels in batches:
        seen, output = _outputs(model, groups, inputs)
        loss = functional.cross_entropy(output, labels, reduction="sum")
        for gated in seen.values():
            gated.retain_grad()
        loss.backward()
        for layer, gated in seen.items():
            for number, score in enumerate(_of_images(gated.detach(), gated.grad)):
                scores[number + 1][layer] = scores[number + 1][layer] + score.sum(0)
        model.zero_grad()
        total, images = total + float(loss.detach()), images + len(labels)
    for group in groups:
        for gate in group.gates:
            weight = model.get_submodule(gate.layer).weight.detach().double().flatten(1)
            counted = weight.count_nonzero(1).clamp_min(1)
            scores[0][gate.layer] = weight.square().sum(1) / counted
    return total / images, [[_group_score(group, s) for group in groups] for s in scores]


def _outputs(
    model: nn.Module, groups: Sequence[Group], inputs: Tensor
) -> tuple[dict[str, Tensor], Tensor]:
    """Return the activations at the gates by layer, and the model's output."""
    seen: dict[str, Tensor] = {}

    def record(layer: str, _: nn.Module, __: object, output: Tensor) -> None:
        seen[layer] = output

    handles = [
        model.get_submodule(gate.module).register_forward_hook(partial(record, gate.layer))
        for group in groups
        for gate in group.gates
    ]
    output = model(inputs)
    for handle in handles:
        handle.remove()
    return seen, output


def _of_images(activation: Tensor, gradient: Tensor | None) -> list[Tensor]:
    """Return mean activation, mean gradient and both Taylor metrics, (images, channels) each."""
    assert gradient is not None
    over = tuple(range(2, activation.ndim))
    count = activation.count_nonzero(over).clamp_min(1)
    product = (activation * gradient).sum(over).double()
    return [
        activation.sum(over).double() / count,
        gradient.sum(over).double().abs() / count,
        product.abs() / count,
        product.square() / 2,
    ]


def _group_score(group: Group, scores: dict[str, Tensor]) -> Tensor:
    total = torch.zeros(group.units, dtype=torch.float64)
    for gate in group.gates:
        member = group.producer(gate.layer)
        total.index_add_(0, member.unit, scores[gate.layer][member.index].double())
    return total


def _propose(
    saliencies: list[list[Tensor]], groups: Sequence[Group], gone: set[Unit], candidates: int
) -> list[Unit]:
    """Each metric in turn adds its lowest-ranked unit that is not chosen yet."""
    left = [
        (number, unit)
        for number, group in enumerate(groups)
        for unit in range(group.units)
        if (number, unit) not in gone
    ]
    last = {n for n in range(len(groups)) if sum(unit[0] == n for unit in left) == 1}
    left = [unit for unit in left if unit[0] not in last]
    orders = [sorted(left, key=lambda unit: float(s[unit[0]][unit[1]])) for s in saliencies]
    chosen: list[Unit] = []
    while len(chosen) < min(candidates, len(left)):
        for order in orders:
            fresh = next((unit for unit in order if unit not in chosen), None)
            if fresh is not None and len(chosen) < candidates:
                chosen.append(fresh)
    return chosen
