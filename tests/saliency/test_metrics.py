"""Every metric against a slow, obvious computation written out by hand."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional

from slimnet.errors import InputError
from slimnet.groups import find_groups
from slimnet.saliency import METRICS, gather_statistics, require_metrics, score_units


@pytest.fixture
def observed(residual, images):
    """Feature maps at every gate and their gradients, image by image, the slow way."""
    labels = torch.tensor([0, 1, 2, 3, 0, 1])
    groups, _ = find_groups(residual, images, layers="all")
    gates = [gate for group in groups for gate in group.gates]
    maps = []
    for image, label in zip(images, labels, strict=True):
        kept, handles = {}, []
        for gate in gates:

            def keep(_, __, output, layer=gate.layer, kept=kept):
                output.retain_grad()
                kept[layer] = output
                return output.clone()

            handles.append(residual.get_submodule(gate.module).register_forward_hook(keep))
        residual.zero_grad()
        functional.cross_entropy(residual(image[None]), label[None]).backward()
        for handle in handles:
            handle.remove()
        maps.append({k: (v.detach()[0].double(), v.grad[0].double()) for k, v in kept.items()})
    batches = [(images[:4], labels[:4]), (images[4:], labels[4:])]
    return residual, groups, gates, batches, maps


def by_hand(metric, weight, maps, layer, channel):
    if metric == "mean_square_weight":
        values = [w.item() for w in weight[channel].flatten() if w != 0]
        return sum(w * w for w in values) / len(values)
    total = 0.0
    for seen in maps:
        a, g = (x[channel].flatten().tolist() for x in seen[layer])
        length = sum(1 for x in a if x != 0)
        taylor = sum(x * y for x, y in zip(a, g, strict=True))
        total += {
            "mean_activation": sum(a) / length,
            "mean_gradient": abs(sum(g)) / length,
            "taylor_first_order": abs(taylor) / length,
            "taylor_second_order": 0.5 * taylor**2,
        }[metric]
    return total / len(maps)


@pytest.mark.parametrize("metric", sorted(METRICS))
def test_metric_is_the_formula_of_the_paper(observed, metric):
    model, _, gates, batches, maps = observed
    statistics, _ = gather_statistics(model, gates, batches)
    for gate in gates:
        weight = model.get_submodule(gate.layer).weight.detach().double()
        scores = METRICS[metric](statistics[gate.layer])
        expected = [by_hand(metric, weight, maps, gate.layer, c) for c in range(len(scores))]
        assert scores.tolist() == pytest.approx(expected, rel=1e-3, abs=1e-9)


@pytest.mark.parametrize("metric", sorted(METRICS))
def test_a_group_scores_the_sum_of_its_members(observed, metric):
    model, groups, gates, batches, _ = observed
    statistics, _ = gather_statistics(model, gates, batches)
    scores = score_units(groups, statistics, [metric])[metric]
    stem = next(g for g in groups if g.name == "stem")
    start = sum(g.units for g in groups[: groups.index(stem)])
    one = {layer: METRICS[metric](statistics[layer]) for layer in ("stem", "outer", "wide")}
    assert torch.allclose(scores[start : start + 8], one["stem"] + one["outer"])
    wide = next(g for g in groups if g.name == "wide")
    start = sum(g.units for g in groups[: groups.index(wide)])
    both = one["wide"] + METRICS[metric](statistics["depthwise"])
    assert torch.allclose(scores[start : start + 6], both[:6] + both[6:])


def test_statistics_leave_the_network_and_its_loss_alone(observed):
    model, _, gates, batches, _ = observed
    before = {k: v.clone() for k, v in model.state_dict().items()}
    _, loss = gather_statistics(model, gates, batches)
    with torch.no_grad():
        losses = [functional.cross_entropy(model(x), y, reduction="sum") for x, y in batches]
    assert loss == pytest.approx(float(sum(losses)) / 6, rel=1e-5)
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())
    assert not any(module._forward_hooks for module in model.modules())


def test_a_module_that_runs_twice_has_one_feature_map(images):
    class Twice(nn.Module):
        def __init__(self):
            super().__init__()
            self.shared = nn.Conv2d(3, 3, 3, padding=1)
            self.head = nn.Linear(3, 4)

        def forward(self, x):
            return self.head(self.shared(self.shared(x)).mean((2, 3)))

    torch.manual_seed(0)
    model = Twice()
    from slimnet.groups import Gate

    labels = torch.zeros(6, dtype=torch.int64)
    statistics, _ = gather_statistics(model, [Gate("shared", "shared")], [(images, labels)])
    with torch.no_grad():
        first = model.shared(images)
        total = (first + model.shared(first)).sum((2, 3)).double()
    assert torch.allclose(statistics["shared"].activation, total, atol=1e-4)
    assert statistics["shared"].count.max() == 2 * 64


def test_a_mistyped_metric_gets_the_nearest_name():
    with pytest.raises(InputError, match="did you mean 'mean_gradient'"):
        require_metrics(("mean_gradiant",))
