"""Scores of units: transitive scaling, group metrics, and what they need."""

from __future__ import annotations

import math
from dataclasses import dataclass

import pytest
import torch
import torchvision

from slimnet.errors import InputError
from slimnet.groups.cut import slim_copy
from slimnet.groups.find import find_groups
from slimnet.groups.group import plan_for
from slimnet.saliency.metrics import METRICS, needs_removal_errors, saved_parameters, score_units
from slimnet.saliency.statistics import gather_statistics


def count(model):
    return sum(p.numel() for p in model.parameters())


def saved_by_cutting(model, group, unit):
    plan = plan_for([group], [torch.tensor([unit])])
    return count(model) - count(slim_copy(model, plan))


def test_saved_parameters_is_what_cutting_saves(residual, images):
    groups, _ = find_groups(residual, images, layers="all")
    assert {g.name for g in groups} == {"stem", "inner", "wide", "grouped", "hidden"}
    for group in groups:
        expected = [saved_by_cutting(residual, group, unit) for unit in range(group.units)]
        assert saved_parameters(group, residual).tolist() == expected


def test_weights_that_go_on_both_sides_count_once(images):
    class Sum(torch.nn.Module):
        """A layer that reads and writes the same stream."""

        def __init__(self):
            super().__init__()
            self.stem = torch.nn.Conv2d(3, 6, 1)
            self.block = torch.nn.Conv2d(6, 6, 3, padding=1)
            self.head = torch.nn.Linear(6, 4)

        def forward(self, x):
            x = self.stem(x).relu()
            return self.head((x + self.block(x)).relu().mean((2, 3)))

    model = Sum().eval()
    (group,), _ = find_groups(model, images)
    assert saved_parameters(group, model).tolist() == [saved_by_cutting(model, group, 0)] * 6


@pytest.mark.parametrize("name", ["mobilenet_v2", "densenet121", "regnet_y_400mf"])
def test_saved_parameters_on_torchvision_families(name):
    model = torchvision.models.get_model(name, num_classes=7).eval()
    groups, _ = find_groups(model, torch.randn(2, 3, 64, 64))
    for group in (groups[0], groups[len(groups) // 2], groups[-1]):
        last = group.units - 1
        found = saved_parameters(group, model)
        assert found[last] == saved_by_cutting(model, group, last)


def gathered(residual, images):
    groups, _ = find_groups(residual, images, layers="all")
    gates = [gate for group in groups for gate in group.gates]
    labels = torch.tensor([0, 1, 2, 3, 0, 1])
    statistics, _ = gather_statistics(residual, gates, [(images, labels)])
    return groups, statistics


@pytest.mark.parametrize("metric", sorted(METRICS))
def test_transitive_is_the_score_for_each_parameter_saved(residual, images, metric):
    groups, statistics = gathered(residual, images)
    before = {k: v.clone() for k, v in residual.state_dict().items()}
    names = [metric, f"transitive_{metric}"]
    scores = score_units(groups, statistics, names, model=residual)
    plain, scaled = (scores[name].tolist() for name in names)
    start = 0
    for group in groups:
        for unit in range(group.units):
            parameters = saved_by_cutting(residual, group, unit)
            assert scaled[start + unit] == pytest.approx(plain[start + unit] / parameters)
        start += group.units
    assert start == len(scaled)
    assert all(torch.equal(v, before[k]) for k, v in residual.state_dict().items())


@dataclass
class Errors:
    """Removal errors as given."""

    alone: dict[str, dict[str, torch.Tensor]]
    together: dict[str, torch.Tensor]

    @property
    def groups(self) -> list[str]:
        return list(self.alone)


def test_reconstruction_error_is_the_sum_over_consumers(residual, images):
    groups, statistics = gathered(residual, images)
    first, rest = groups[0], groups[1:]
    assert {m.module for m in first.members if m.direction == "in"} == {"inner", "wide"}
    one, other = torch.arange(8.0).double(), torch.full((8,), 0.5).double()
    errors = Errors({"stem": {"inner": one, "wide": other}}, {"stem": one})
    name = "reconstruction_error"
    score = score_units(groups, statistics, [name], removal_errors=errors)[name]
    assert score[:8].tolist() == [unit + 0.5 for unit in range(8)]
    assert score[8:].tolist() == [math.inf] * sum(g.units for g in rest), "unknown: comes last"
    del errors.alone["stem"]["wide"]
    score = score_units(groups, statistics, [name], removal_errors=errors)[name]
    assert score[:8].tolist() == [math.inf] * 8


def test_joint_reconstruction_error_is_the_one_with_all_that_go_before(residual, images):
    groups, statistics = gathered(residual, images)
    known = torch.arange(8.0).double()
    errors = Errors({"stem": {"inner": known, "wide": known}}, {"stem": known})
    name = "joint_reconstruction_error"
    score = score_units(groups, statistics, [name], removal_errors=errors)[name]
    assert score[:8].tolist() == known.tolist()
    assert score[8:].tolist() == [math.inf] * sum(g.units for g in groups[1:])


def test_a_metric_says_what_it_lacks(residual, images):
    groups, statistics = gathered(residual, images)
    assert needs_removal_errors(["apoz", "transitive_reconstruction_error"])
    assert not needs_removal_errors(["apoz", "transitive_taylor_second_order"])
    for nothing in (None, Errors({}, {})):
        with pytest.raises(InputError, match="repair is off"):
            score_units(
                groups, statistics, ["transitive_reconstruction_error"],
                model=residual, removal_errors=nothing,
            )  # fmt: skip
    with pytest.raises(InputError, match="transitive_apoz counts parameters"):
        score_units(groups, statistics, ["transitive_apoz"])
