import copy
import math
from argparse import Namespace

import networks
import paper
import peer_pruning
import peers
import peers_report
import pytest
import torch
from peer_pruning import VARIANTS, Attempt, bisect_ratio
from torch.nn import functional

from slimnet.execution.size import count_conv_weights

LENET = paper.ROWS[0]


def fake_run(method, seed=0, share=20.0, speedup=1.5):
    timed = {"original_ms": 1.0, "slim_ms": 0.5, "speedup": [speedup, speedup - 0.1, speedup + 0.1]}
    return {
        "network": "lenet5", "dataset": "cifar10", "method": method, "seed": seed,
        "conv_weights_removed_percent": share, "parameters_removed_percent": 10.0,
        "macs_ratio": 1.25, "selection_drop_points": 4.0, "test_drop_points": 5.0,
        "latency": {"1": timed, "32": timed}, "seconds": 7.0, "images": {"oracle": 512},
    }  # fmt: skip


@pytest.mark.parametrize("limit", [0.0, 0.03, 0.3, 0.999])
def test_bisection_ends_close_below_the_limit(limit):
    best, failures = bisect_ratio(lambda r: Attempt(r, None, 5 * r / max(limit, 1e-9)), 5.0)
    assert failures == []
    if limit < 1 / 512:
        assert best is None
    else:
        assert limit - 1 / 512 < best.ratio <= limit


def test_bisection_counts_a_failure_as_too_much_and_reports_it():
    def attempt(ratio):
        failed = ratio > 0.4
        return Attempt(ratio, None, math.inf if failed else 0, "boom" if failed else None)

    best, failures = bisect_ratio(attempt, 5.0, evaluations=3)
    assert best.ratio == 0.375
    assert failures == ["ratio 0.500: boom"]


@pytest.mark.parametrize("name", VARIANTS)
def test_pruning_leaves_the_model_as_it_was(subject, name):
    before = copy.deepcopy(subject.model.state_dict())
    gradients = [copy.deepcopy(parameter.grad) for parameter in subject.model.parameters()]
    batches = subject.splits.calibration.batches[:1]
    slim = peer_pruning.prune(subject.model, subject.example, batches, VARIANTS[name], 0.4)
    assert count_conv_weights(slim) < count_conv_weights(subject.model)
    assert slim(subject.example).shape == (2, 4)
    assert all(torch.equal(v, before[k]) for k, v in subject.model.state_dict().items())
    for parameter, gradient in zip(subject.model.parameters(), gradients, strict=True):
        assert parameter.grad is gradient or torch.equal(parameter.grad, gradient)


def test_gradients_are_those_that_each_importance_reads(subject):
    model = copy.deepcopy(subject.model)
    model.zero_grad(set_to_none=True)
    # with wrong labels, since a trained network has next to no gradients on the right ones
    batches = [(x, (y + 1) % 4) for x, y in subject.splits.calibration.batches[:2]]
    parameters = list(model.parameters())
    inputs, labels = (torch.cat(part) for part in zip(*batches, strict=True))
    mean = torch.autograd.grad(functional.cross_entropy(model(inputs), labels), parameters)
    squares = [
        [g**2 for g in torch.autograd.grad(functional.cross_entropy(model(x), y), parameters)]
        for x, y in zip(inputs.split(1), labels.split(1), strict=True)
    ]
    peer_pruning.set_gradients(model, batches, "magnitude")
    assert all(p.grad is None for p in parameters)
    peer_pruning.set_gradients(model, batches, "taylor")
    for parameter, expected in zip(parameters, mean, strict=True):
        torch.testing.assert_close(parameter.grad, expected)
    peer_pruning.set_gradients(model, batches, "hessian")
    for number, parameter in enumerate(parameters):
        torch.testing.assert_close(
            parameter.grad, sum(one[number] for one in squares) / len(labels)
        )


def test_layers_that_stay_whole():
    network = networks.lenet5()
    names = {module: name for name, module in network.named_modules()}

    def ignored(variant):
        layers = peer_pruning.ignored_layers(network, VARIANTS[variant])
        return {names[layer] for layer in layers}

    assert ignored("taylor_global") == {"ip1", "ip2"}
    assert ignored("taylor_global_linear") == {"ip2"}
    assert len(peers.methods_for(LENET)) == 15
    assert len(peers.methods_for(paper.ROWS[3])) == 9


def test_the_gradient_images_are_spread_over_the_calibration_split(subject):
    split = subject.oracle_split(40)
    every = torch.cat([inputs for inputs, _ in subject.splits.calibration.batches])
    assert torch.equal(torch.cat([inputs for inputs, _ in split.batches]), every[::3])
    assert subject.images(40)["oracle"] == split.images == len(every[::3])


def test_a_network_within_the_budget_is_measured(subject, monkeypatch):
    monkeypatch.setattr(peers.peer_measures, "latency", lambda *_: {})
    options = Namespace(train=None, held_out="x.npz", oracle_images=60)
    run = peers.run_method(LENET, "magnitude_global", 0, subject, options)
    assert run["selection_drop_points"] <= 5
    assert 0 < run["conv_weights_removed_percent"] < 100
    assert run["macs_ratio"] > 1
    assert 0 < run["ratio"] < 1


def test_a_failure_is_recorded_with_its_reason(subject, monkeypatch):
    def broken(*_):
        raise IndexError("out of range\nand more")

    monkeypatch.setattr(peers, "prune", broken)
    options = Namespace(train=None, held_out="x.npz", oracle_images=60)
    run = peers.run_method(LENET, "taylor_local", 0, subject, options)
    assert run["failure"].startswith("ratio 0.500: IndexError: out of range; ratio 0.250:")


def test_finished_methods_are_not_run_again(subject, monkeypatch, tmp_path, capsys):
    ran = []

    def run_method(row, method, seed, subject, options):
        ran.append((method, seed))
        return fake_run(method, seed)

    monkeypatch.setattr(peers, "run_method", run_method)
    monkeypatch.setattr(peers.paper, "load_subject", lambda row, options, seed: subject)
    call = ["--rows", "lenet5", "--results", str(tmp_path), "--methods", "slimnet_macs"]
    peers.main([*call, "--seeds", "0"])
    peers.main([*call, "hessian_local", "--seeds", "0"])
    assert ran == [("slimnet_macs", 0), ("hessian_local", 0)]
    assert "| torch-pruning, hessian, local | 20 % |" in capsys.readouterr().out


def test_table_shows_the_best_variant_and_the_best_of_each_column():
    found = [
        fake_run("slimnet_latency", 0, 70, 3.0),
        fake_run("slimnet_latency", 1, 72, 3.2),
        fake_run("magnitude_global", 0, 20, 1.1),
        fake_run("magnitude_local", 0, 15, 1.4),
        {"network": "lenet5", "dataset": "cifar10", "method": "taylor_local", "seed": 0,
         "failure": "ratio 0.500: no", "seconds": 1.0},
    ]  # fmt: skip
    lines = peers_report.report(paper.ROWS, found).splitlines()
    name = "| LeNet-5, CIFAR-10 |"
    assert lines[2:] == [
        f"{name} slimnet, latency | 71 ± 1 % | 10 ± 0 % | 1.25 ± 0.00 | 3.10 [2.90, 3.30] "
        "| 3.10 [2.90, 3.30] | 4.0 ± 0.0 | 5.0 ± 0.0 | 7 ± 0 s |",
        f"{name} torch-pruning, magnitude, global | 20 % | 10 % | 1.25 | 1.10 [1.00, 1.20] "
        "| 1.10 [1.00, 1.20] | 4.0 | 5.0 | 7 s |",
        f"{name} torch-pruning, best of 2 in each column | 20 % | 10 % | 1.25 "
        "| 1.40 [1.30, 1.50] | 1.40 [1.30, 1.50] |  |  |  |",
        "",
        "Mean ± standard deviation over 2 seeds. LeNet-5, CIFAR-10: images 512 for oracle."
        + peers_report.TIMED,
        "",
        "Failed:",
        "",
        "- lenet5, cifar10, taylor_local, seed 0: ratio 0.500: no",
    ]
