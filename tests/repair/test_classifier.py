"""The last layer fitted to labels."""

import copy

import pytest
import torch
from torch import nn
from torch.nn import functional

from slimnet.repair import TeacherOutputs, fit_classifier
from slimnet.repair.classifier import logistic_regression
from slimnet.repair.repair import RIDGE


def data(images=200, columns=6, classes=4):
    torch.manual_seed(0)
    features = torch.randn(images, columns)
    return features, (features @ torch.randn(columns, classes)).argmax(1)


def test_it_is_the_minimum_that_gradient_descent_finds():
    features, labels = data()
    start = torch.randn(4, 6, dtype=torch.float64)
    found = logistic_regression(start, features, labels)
    ridge = RIDGE * float(features.double().square().mean())
    slow = start.clone().requires_grad_()
    optimiser = torch.optim.LBFGS([slow], max_iter=200, line_search_fn="strong_wolfe")

    def loss(weights):
        away = ridge / 2 * (weights - start).square().sum()
        return functional.cross_entropy(features.double() @ weights.T, labels) + away

    def closure():
        optimiser.zero_grad()
        value = loss(slow)
        value.backward()
        return value

    optimiser.step(closure)
    assert loss(start) > loss(found) >= loss(slow).detach() - 1e-9
    assert float(loss(found)) == pytest.approx(loss(slow).item(), rel=0.05)


@pytest.mark.parametrize("bias", [True, False])
def test_only_the_last_layer_changes_and_the_loss_falls(bias):
    features, labels = data()
    model = nn.Sequential(nn.Linear(6, 5), nn.ReLU(), nn.Linear(5, 4, bias=bias)).eval()
    slim = copy.deepcopy(model)
    assert fit_classifier(TeacherOutputs(model, [(features, labels)]), slim)
    changed = {n for n, p in slim.named_parameters() if not torch.equal(p, model.get_parameter(n))}
    assert changed == ({"2.weight", "2.bias"} if bias else {"2.weight"})
    losses = [functional.cross_entropy(network(features), labels) for network in (slim, model)]
    assert losses[0] < losses[1]


def test_a_network_that_does_not_end_with_a_linear_layer_stays_as_it_is():
    features, labels = data()
    model = nn.Sequential(nn.Linear(6, 4), nn.ReLU())
    slim = copy.deepcopy(model)
    assert not fit_classifier(TeacherOutputs(model, [(features, labels)]), slim)
    assert torch.equal(slim[0].weight, model[0].weight)


def test_of_one_logit_the_binary_cross_entropy_falls_to_its_minimum():
    features, labels = data(classes=2)
    start = nn.Sequential(nn.Linear(6, 1)).eval()
    slim, slow = copy.deepcopy(start), copy.deepcopy(start)
    assert fit_classifier(TeacherOutputs(start, [(features, labels)]), slim)
    optimiser = torch.optim.LBFGS(slow.parameters(), max_iter=200, line_search_fn="strong_wolfe")

    def loss(network):
        pairs = zip(network.parameters(), start.parameters(), strict=True)
        away = sum((one - other).square().sum() for one, other in pairs)
        ridge = RIDGE * float(features.square().sum() + len(features)) / (7 * len(features))
        logits = network(features)[:, 0]
        fit = functional.binary_cross_entropy_with_logits(logits, labels.float())
        return fit + ridge / 4 * away

    def closure():
        optimiser.zero_grad()
        value = loss(slow)
        value.backward()
        return value

    optimiser.step(closure)
    assert loss(slim) < 0.7 * loss(start)
    assert loss(slim).item() == pytest.approx(loss(slow).item(), rel=0.1)
