"""Folded norms: the same outputs, trials and proposals, in fewer passes over feature maps."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from slimnet.execution.folding import folded, folded_values, normed_layers, norms_to_fold
from slimnet.execution.running import RunningNetwork
from slimnet.execution.states import replaced
from slimnet.groups.find import find_groups
from slimnet.groups.group import norms_behind, plan_for
from slimnet.records.data import Split
from slimnet.repair.repair import gather_inverse_grams
from slimnet.search.candidates import propose_sets
from slimnet.search.evaluate import rank
from slimnet.search.oracle import Oracle
from slimnet.search.state import State, first_state
from slimnet.search.trial import make_trial


def randomised(model, seed=0):
    """Return the model in eval mode with norms that do something."""
    torch.manual_seed(seed)
    for module in model.modules():
        if isinstance(module, (nn.BatchNorm1d, nn.BatchNorm2d)):
            for tensor in (module.running_mean, module.bias.data):
                tensor.normal_()
            for tensor in (module.running_var, module.weight.data):
                tensor.uniform_(0.5, 2)
    return model.eval()


def small():
    return randomised(
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
    return groups, norms_to_fold(model, norms_behind(groups), lambda network: (network(IMAGES),))


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


@pytest.mark.parametrize(
    ("layer", "norm"),
    [
        (nn.Conv1d(3, 6, 3, bias=False), nn.BatchNorm1d(6)),
        (nn.Conv2d(3, 6, 3, groups=3), nn.BatchNorm2d(6)),
        (nn.ConvTranspose2d(3, 6, 3), nn.BatchNorm2d(6)),
        (nn.ConvTranspose2d(3, 6, 3, groups=3), nn.BatchNorm2d(6)),
        (nn.Linear(3, 6), nn.BatchNorm1d(6)),
    ],
)
@torch.no_grad()
def test_every_kind_of_layer_takes_in_its_norm_or_keeps_it(layer, norm):
    model = randomised(nn.Sequential(layer, norm))
    shape = {nn.Conv1d: (4, 3, 8), nn.Linear: (4, 3)}.get(type(layer), (4, 3, 8, 8))
    inputs = torch.randn(shape, generator=torch.Generator().manual_seed(2))
    assert normed_layers(model, lambda: model(inputs)) == [("0", "1")]
    norms = norms_to_fold(model, {"0": "1"}, lambda network: (network(inputs),))
    grouped_transposed = isinstance(layer, nn.ConvTranspose2d) and layer.groups > 1
    assert norms == ({} if grouped_transposed else {"0": "1"})
    torch.testing.assert_close(folded(model, norms)(inputs), model(inputs))


@pytest.mark.parametrize("repair", [False, True])
@pytest.mark.parametrize("consumers_only", [False, True])
def test_a_trial_of_the_folded_network_is_that_of_the_network(repair, consumers_only):
    model = small()
    groups, norms = foldable(model)
    batches = [(IMAGES, torch.zeros(8, dtype=torch.int64))]
    inverse_grams = gather_inverse_grams(model, groups, batches, 8) if repair else {}
    plan = plan_for(groups, [torch.tensor([1]) for _ in groups])
    outputs = []
    for running in (RunningNetwork(model), RunningNetwork(model, norms)):
        trial = make_trial(running, inverse_grams, plan, consumers_only=consumers_only)
        assert set(trial.values) <= set(running.folded_model.state_dict())
        with replaced(running.folded_model, trial.values):
            outputs.append(running.folded_model(IMAGES))
    torch.testing.assert_close(*outputs)
    values = {"1.running_mean": torch.ones(6)}
    assert set(folded_values(model, values, norms)) == {"0.weight", "0.bias"}


def test_scores_and_sensitivities_are_those_of_the_network():
    model = small()
    groups, _ = find_groups(model, IMAGES[:2])
    split = Split("calibration", 8, [(IMAGES, torch.arange(8) % 4)])
    fast = first_state(model, groups, split, repair=False)
    assert fast.running.norms
    found = []
    for state in (fast, State(RunningNetwork(fast.model), groups, {}, {})):
        ranking = rank(state, split.batches, ["taylor_first_order", "l1_weight"])
        proposals = propose_sets(groups, ranking.scores, candidates=6, channels=1)
        contests = Oracle(state, split).measure(
            state, [[proposal] for proposal in proposals], ranking.losses, [[1.0]] * 6
        )
        found.append((ranking.scores, [one.sensitivities[0].nats for one in contests]))
    for metric, scores in found[0][0].items():
        torch.testing.assert_close(scores, found[1][0][metric], rtol=1e-4, atol=1e-6)
    assert found[0][1] == pytest.approx(found[1][1], abs=1e-5)
