"""Folded norms: the same outputs, trials and proposals, in fewer passes over feature maps."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from slimnet.groups import find_groups, plan_for
from slimnet.records import Split
from slimnet.recover import gather_moments, replaced
from slimnet.search.folding import folded, folded_values, norms_to_fold
from slimnet.search.oracle import Oracle
from slimnet.search.proposals import propose_sets
from slimnet.search.ranking import rank
from slimnet.search.state import State, first_state
from slimnet.search.trial import make_trial, trace_state


def stirred(model, seed=0):
    """Return the model in eval mode with norms that do something."""
    torch.manual_seed(seed)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            for tensor in (module.running_mean, module.bias.data):
                tensor.normal_()
            for tensor in (module.running_var, module.weight.data):
                tensor.uniform_(0.5, 2)
    return model.eval()


def small():
    return stirred(
        nn.Sequential(
            nn.Conv2d(3, 6, 3, padding=1, bias=False),
            nn.BatchNorm2d(6),
            nn.ReLU(inplace=True),
            nn.Conv2d(6, 5, 3),
            nn.BatchNorm2d(5),
            nn.ReLU(),
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
            nn.Linear(5, 4),
        )
    )


IMAGES = torch.randn(8, 3, 8, 8, generator=torch.Generator().manual_seed(1))


def foldable(model):
    groups, _ = find_groups(model, IMAGES[:2])
    return groups, norms_to_fold(model, groups, lambda network: (network(IMAGES),))


def test_the_folded_copy_gives_the_same_and_has_no_norms():
    model = small()
    before = copy.deepcopy(model.state_dict())
    _, norms = foldable(model)
    assert norms == {"0": "1", "3": "4"}
    fast = folded(model, norms)
    torch.testing.assert_close(fast(IMAGES), model(IMAGES))
    assert not any(isinstance(module, nn.BatchNorm2d) for module in fast.modules())
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())


def test_a_norm_without_weights_or_in_another_place_stays():
    model = small()
    model[1] = nn.BatchNorm2d(6, affine=False).eval()
    assert foldable(model)[1] == {"3": "4"}

    class Reading(nn.Module):
        def __init__(self, leaf):
            super().__init__()
            self.net, self.leaf = small(), leaf

        def forward(self, x):
            return self.net(x) + self.net.get_parameter(self.leaf).sum()

    assert foldable(Reading("0.weight").eval())[1] == {}
    assert foldable(Reading("1.weight").eval())[1] == {}


@pytest.mark.parametrize("repair", [False, True])
@pytest.mark.parametrize("consumers_only", [False, True])
def test_a_trial_of_the_folded_network_is_that_of_the_network(repair, consumers_only):
    model = small()
    groups, norms = foldable(model)
    batches = [(IMAGES, torch.zeros(8, dtype=torch.int64))]
    moments = gather_moments(model, groups, batches, 8) if repair else {}
    plan = plan_for(groups, [torch.tensor([1]) for _ in groups])
    outputs = []
    for state in (
        State(model, groups, {}, moments),
        State(model, groups, {}, moments, norms=norms),
    ):
        calls, _ = trace_state(state, batches)
        trial = make_trial(state, plan, calls, consumers_only=consumers_only)
        assert set(trial.values) <= set(state.running.state_dict())
        with replaced(state.running, trial.values):
            outputs.append(state.running(IMAGES))
    torch.testing.assert_close(*outputs)
    values = {"1.running_mean": torch.ones(6)}
    assert set(folded_values(model, values, norms)) == {"0.weight", "0.bias"}


def test_scores_and_sensitivities_are_those_of_the_network():
    model = small()
    groups, _ = find_groups(model, IMAGES[:2])
    split = Split("calibration", 8, [(IMAGES, torch.arange(8) % 4)])
    fast = first_state(model, groups, split, repair=False)
    assert fast.norms
    found = []
    for state in (fast, State(fast.model, groups, {}, {})):
        ranking = rank(state, split.batches, ["taylor_first_order", "l1_weight"])
        proposals = propose_sets(groups, ranking.scores, candidates=6, channels=1)
        measured, _ = Oracle(state, split).measure(state, proposals, ranking.losses, [1.0] * 6)
        found.append((ranking.scores, [sensitivity.nats for sensitivity in measured]))
    for metric, scores in found[0][0].items():
        torch.testing.assert_close(scores, found[1][0][metric], rtol=1e-4, atol=1e-6)
    assert found[0][1] == pytest.approx(found[1][1], abs=1e-5)
