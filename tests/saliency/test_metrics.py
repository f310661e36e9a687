"""Every metric against a slow, obvious computation written out by hand."""

from __future__ import annotations

import math
from collections import Counter

import pytest
import torch
from torch import nn
from torch.nn import functional

from slimnet.errors import InputError
from slimnet.groups.find import find_groups
from slimnet.groups.group import Gate
from slimnet.saliency.metrics import (
    METRICS,
    lacks_classes,
    read_by,
    require_metrics,
    score_units,
)
from slimnet.saliency.statistics import EVERY_SUM, LayerStatistics, gather_statistics
from slimnet.tasks.classification import CLASSIFICATION
from slimnet.tasks.task import Task


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
        output = residual(image[None])
        functional.cross_entropy(output, label[None]).backward()
        for handle in handles:
            handle.remove()
        maps.append({k: (v.detach()[0].double(), v.grad[0].double()) for k, v in kept.items()})
        maps[-1]["prediction"] = int(output.argmax())
    batches = [(images[:4], labels[:4]), (images[4:], labels[4:])]
    return residual, groups, gates, batches, maps


def by_hand(metric, weight, maps, layer, channel):
    weights = weight[channel].flatten().tolist()
    elements = [seen[layer][0][channel].flatten().tolist() for seen in maps]
    if metric == "mean_square_weight":
        values = [w for w in weights if w != 0]
        return sum(w * w for w in values) / len(values)
    if metric == "l1_weight":
        return sum(abs(w) for w in weights)
    if metric == "l2_weight":
        return math.sqrt(sum(w * w for w in weights))
    if metric == "deviation_activation":
        everything = [a for image in elements for a in image]
        mean = sum(everything) / len(everything)
        return math.sqrt(sum((a - mean) ** 2 for a in everything) / len(everything))
    if metric == "mutual_information":
        means = [sum(image) / len(image) for image in elements]
        return information(means, [seen["prediction"] for seen in maps])
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
            "mean_absolute_activation": sum(abs(x) for x in a) / len(a),
            "apoz": 1 - sum(1 for x in a if x <= 0) / len(a),
        }[metric]
    return total / len(maps)


def information(values, classes):
    """I(bin; class) in nats, from frequencies; equal values share the bin of the first of them."""
    n = len(values)
    bins = [8 * sorted(values).index(value) // n for value in values]
    both, left, right = Counter(zip(bins, classes, strict=True)), Counter(bins), Counter(classes)
    return sum(m / n * math.log(m * n / (left[b] * right[c])) for (b, c), m in both.items())


@pytest.mark.parametrize("metric", sorted(METRICS))
def test_metric_is_its_formula(observed, metric):
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
    _, losses = gather_statistics(model, gates, batches)
    with torch.no_grad():
        expected = [functional.cross_entropy(model(x), y, reduction="none") for x, y in batches]
    assert losses.tolist() == pytest.approx(torch.cat(expected).tolist(), rel=1e-5)
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())
    assert not any(module._forward_hooks for module in model.modules())


class Parts(nn.Module):
    """A layer on parts of images, wherever these stand."""

    def __init__(self, parts):
        super().__init__()
        torch.manual_seed(0)
        self.wide, self.head, self.parts = nn.Linear(3, 7), nn.Linear(7, 4), parts

    def forward(self, x):
        x = x.flatten(2).transpose(1, 2)
        n, pixels, channels = x.shape
        if self.parts == "windows":
            wide = self.wide(x.reshape(n * 8, pixels // 8, channels)).relu().reshape(n, pixels, 7)
        elif self.parts == "tokens first":
            wide = self.wide(x.transpose(0, 1)).relu().transpose(0, 1)
        else:
            wide = self.wide(x).relu()
        return self.head(wide.mean(1))


@pytest.mark.parametrize("parts", ["windows", "tokens first"])
def test_parts_of_images_in_the_first_axis_belong_to_their_images(images, parts):
    labels, gates = torch.tensor([0, 1, 2, 3, 0, 1]), [Gate("wide", "wide")]
    expected, _ = gather_statistics(Parts("").eval(), gates, [(images, labels)])
    found, _ = gather_statistics(Parts(parts).eval(), gates, [(images, labels)])
    for name in EVERY_SUM:
        seen, slow = getattr(found["wide"], name), getattr(expected["wide"], name)
        assert seen.shape == slow.shape == (6, 7)
        if parts == "tokens first":  # which of them are of which image is not to be seen
            slow = slow.mean(0).expand(6, 7)
        torch.testing.assert_close(seen, slow, rtol=1e-5, atol=1e-6)
    for metric in METRICS.values():
        assert metric(found["wide"]).shape == (7,)


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


def test_a_mistyped_transitive_metric_gets_the_nearest_transitive_name():
    require_metrics(("transitive_apoz", "reconstruction_error", "transitive_reconstruction_error"))
    with pytest.raises(InputError, match="did you mean 'transitive_l1_weight'"):
        require_metrics(("transitive_l1_weigth",))
    with pytest.raises(InputError, match="unknown saliency metric 'transitive_'"):
        require_metrics(("transitive_",))


def layer_statistics(activation, prediction=None, positions=1):
    """Statistics of feature maps (images, channels) that are the same at every position."""
    activation = torch.as_tensor(activation, dtype=torch.float64)
    images, channels = activation.shape
    return LayerStatistics(
        weight=torch.zeros(channels, 4, dtype=torch.float64),
        prediction=torch.arange(images) % 2 if prediction is None else torch.tensor(prediction),
        elements=torch.full_like(activation, positions),
        count=positions * (activation != 0).double(),
        positive=positions * (activation > 0).double(),
        activation=positions * activation,
        absolute=positions * activation.abs(),
        square=positions * activation.square(),
        gradient=torch.zeros_like(activation),
        product=torch.zeros_like(activation),
    )


@pytest.mark.parametrize("metric", sorted(METRICS))
def test_a_dead_channel_scores_zero(metric):
    assert METRICS[metric](layer_statistics(torch.zeros(6, 3), positions=9)).tolist() == [0, 0, 0]


def test_information_of_a_channel_that_tells_the_class_is_the_entropy_of_the_class():
    prediction = [0, 0, 1, 1, 2, 2, 3, 3]
    tells = torch.tensor([0.0, 0, 1, 1, 2, 2, 3, 3])
    # one that tells nothing: both classes of a pair fall half into each bin; and a constant one
    half = torch.tensor([0.0, 1, 0, 1, 0, 1, 0, 1])
    layer = layer_statistics(torch.stack([tells, half, torch.ones(8)], 1), prediction)
    scores = METRICS["mutual_information"](layer).tolist()
    assert scores == pytest.approx([math.log(4), 0, 0], abs=1e-12)


def test_information_does_not_depend_on_the_order_of_the_images_nor_on_the_scale():
    generator = torch.Generator().manual_seed(3)
    # many ties: values of 0 to 4 only
    values = torch.randint(0, 5, (50, 7), generator=generator).double()
    classes = torch.randint(0, 4, (50,), generator=generator).tolist()
    score = METRICS["mutual_information"](layer_statistics(values, classes))
    order = torch.randperm(50, generator=generator)
    mixed = layer_statistics(3 * values[order] - 1, [classes[i] for i in order], positions=4)
    assert torch.allclose(METRICS["mutual_information"](mixed), score, atol=1e-12)
    expected = [information(column.tolist(), classes) for column in values.T]
    assert score.tolist() == pytest.approx(expected, abs=1e-12)


def test_deviation_survives_a_large_mean(images):
    """In float32, E[a²] − E[a]² of values near 1000 would be off by more than the variance."""
    conv = nn.Conv2d(3, 2, 1)
    with torch.no_grad():
        conv.weight.fill_(0.01)
        conv.weight[1] = 0
        conv.bias.fill_(1000)
    model = nn.Sequential(conv, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(2, 4))
    labels = torch.zeros(6, dtype=torch.int64)
    statistics, _ = gather_statistics(model, [Gate("0", "0")], [(images, labels)])
    with torch.no_grad():
        expected = conv(images).double().transpose(0, 1).flatten(1).std(1, correction=0)
    found = METRICS["deviation_activation"](statistics["0"])
    assert expected[1] == 0
    assert found.tolist() == pytest.approx(expected.tolist(), rel=1e-3, abs=1e-4)


def test_statistics_of_a_linear_layer_over_tokens(images):
    model = nn.Sequential(nn.Flatten(2), nn.Linear(64, 5), nn.Flatten(), nn.Linear(15, 4))
    labels = torch.zeros(6, dtype=torch.int64)
    statistics, _ = gather_statistics(model, [Gate("1", "1")], [(images, labels)])
    with torch.no_grad():
        seen = model[1](images.flatten(2)).double()
        prediction = model(images).argmax(1)
    found = statistics["1"]
    assert found.elements.unique().tolist() == [3]
    assert torch.allclose(found.square, seen.square().sum(1), rtol=1e-5)
    assert torch.allclose(found.absolute, seen.abs().sum(1), rtol=1e-5)
    assert torch.equal(found.positive, (seen > 0).double().sum(1))
    assert torch.equal(found.prediction, prediction)


@pytest.mark.parametrize("metric", sorted(METRICS))
def test_a_metric_gets_every_sum_that_it_reads(observed, metric):
    model, _, gates, batches, _ = observed
    everything, _ = gather_statistics(model, gates, batches)
    asked, _ = gather_statistics(model, gates, batches, read_by([metric, f"transitive_{metric}"]))
    for gate in gates:
        expected = METRICS[metric](everything[gate.layer])
        assert torch.equal(METRICS[metric](asked[gate.layer]), expected)


def test_only_what_is_read_is_gathered(observed):
    model, _, gates, batches, _ = observed
    assert read_by(["taylor_second_order"]) == {"product"}
    assert read_by(["reconstruction_error"]) == set()
    statistics, _ = gather_statistics(model, gates, batches, {"product"})
    assert statistics[gates[0].layer].square.numel() == 0


def test_only_metrics_that_read_classes_need_a_task_with_classes():
    own = Task(CLASSIFICATION.loss, CLASSIFICATION.score)
    names = ("taylor_first_order", "transitive_mutual_information")
    assert lacks_classes(own, names).startswith("transitive_mutual_information compares")
    assert not lacks_classes(own, names[:1])
    assert not lacks_classes(CLASSIFICATION, names)
