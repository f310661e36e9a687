"""The search for a task of the user's own: classification said as functions must agree with it."""

import pytest
import torch
from torch import nn

from slimnet.execution.layout import lay_out
from slimnet.groups.find import find_groups
from slimnet.options import Options
from slimnet.records.data import Split
from slimnet.repair.norm_statistics import recalibrate_norms
from slimnet.repair.refit import TeacherOutputs, refit
from slimnet.saliency.statistics import gather_statistics
from slimnet.search.candidates import propose_sets
from slimnet.search.evaluate import rank
from slimnet.search.oracle import Oracle
from slimnet.search.search import search
from slimnet.search.state import first_state
from slimnet.tasks.classification import CLASSIFICATION, mean_loss
from slimnet.tasks.task import Task

OWN = Task(CLASSIFICATION.loss, CLASSIFICATION.score)
METRICS = ("taylor_first_order", "mean_square_weight")


@pytest.fixture
def found(trained):
    model, splits = trained
    return model, splits, find_groups(model, splits.calibration.batches[0][0][:2])[0]


def test_saliencies_and_losses_are_those_of_classification(found):
    model, splits, groups = found
    gates = [gate for group in groups for gate in group.gates]
    batches = splits.calibration.batches
    usual, losses = gather_statistics(model, gates, batches)
    own, batch_losses = gather_statistics(model, gates, batches, task=OWN)
    for layer, statistics in usual.items():
        for name in ("gradient", "product", "activation", "count"):
            got, expected = getattr(own[layer], name), getattr(statistics, name)
            assert torch.allclose(got, expected, rtol=1e-4, atol=1e-6)
        assert len(own[layer].prediction) == 0
    assert batch_losses.shape == losses.shape
    assert batch_losses.mean() == pytest.approx(losses.mean())
    assert torch.allclose(batch_losses[:16], losses[:16].mean().expand(16), rtol=1e-5)


@pytest.mark.parametrize("repair", [True, False])
def test_the_oracle_measures_what_removing_does_on_every_batch(found, repair):
    model, splits, groups = found
    calibration = splits.calibration
    state = first_state(model, groups, calibration, repair=repair, task=OWN)
    ranking = rank(state, calibration.batches, METRICS)
    proposals = propose_sets(groups, ranking.scores, candidates=6, channels=2)
    oracle = Oracle(state, calibration)
    assert state.read_only_by_consumers == {group.name for group in groups}
    contests = oracle.measure(state, [[p] for p in proposals], ranking.losses, [[1.0]] * 6)
    loss = mean_loss(state.model, calibration.batches)
    for proposal, contest in zip(proposals, contests, strict=True):
        (sensitivity,) = contest.sensitivities
        slim = mean_loss(state.without(proposal.units).model, calibration.batches)
        assert sensitivity.nats == pytest.approx(slim - loss, abs=1e-5)
        assert sensitivity.images == calibration.images


def test_a_loss_may_call_the_network_twice():
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Conv2d(4, 6, 3), nn.ReLU(), nn.Conv2d(6, 2, 1)
    ).eval()
    batches = [torch.randn(4, 1, 8, 8) for _ in range(3)]
    task = Task(lambda n, x: n(x).square().mean() - n(-x).mean(), lambda *_: 100.0)
    groups, _ = find_groups(model, batches[0])
    calibration = Split("calibration", 12, batches)
    state = first_state(model, groups, calibration, repair=False, task=task)
    ranking = rank(state, batches, METRICS)
    proposals = propose_sets(groups, ranking.scores, candidates=4, channels=1)
    oracle = Oracle(state, calibration)
    assert len(state.running.calls) == 10
    contests = oracle.measure(state, [[p] for p in proposals], ranking.losses, [[1.0]] * 4)
    before = mean_loss(state.model, batches, task)
    for proposal, contest in zip(proposals, contests, strict=True):
        (sensitivity,) = contest.sensitivities
        after = mean_loss(state.without(proposal.units).model, batches, task)
        assert sensitivity.nats == pytest.approx(after - before, abs=1e-5)


def test_a_whole_search_stays_within_the_budget_of_the_score(found):
    model, splits, groups = found
    options = Options(max_drop=10, confidence=0.5, step=4, oracle_k=4)
    trajectory, slim = search(model, groups, splits, options, task=OWN)
    usual, _ = search(model, groups, splits, options)
    assert trajectory.kept_steps > 0
    assert OWN.score(slim, splits.selection.batches) >= 90
    assert trajectory.steps[0].drop.quantity == "top 1 accuracy"
    for step in trajectory.steps:
        assert {step.candidates[number].images for number in step.chosen} == {120}
    assert trajectory.steps[0].calibration_loss == pytest.approx(
        usual.steps[0].calibration_loss, abs=0.05
    )


def test_batches_are_taken_whole_where_the_task_cannot_take_them_apart(trained):
    split = trained[1].calibration  # 120 images in batches of 16
    everything = lay_out(split, task=OWN, memory_bytes=1)
    assert [id(batch) for batch in everything.batches] == [id(batch) for batch in split.batches]
    some = lay_out(split, 60, task=OWN)
    assert [id(batch) for batch in some.batches] == [id(batch) for batch in split.batches[::2]]
    assert some.images == sum(len(labels) for _, labels in some.batches)
    solving, judging = OWN.batches(split.batches).hold_back(4)
    assert [id(batch) for batch in judging] == [id(batch) for batch in split.batches[3::4]]
    assert len([*solving, *judging]) == len(split.batches)
    solving, judging = OWN.batches(split.batches[:2]).hold_back(4)
    assert judging is solving


def test_recovery_helps_a_spoilt_network(found):
    """Norm statistics and refitting work through the task's loss alone."""
    model, splits, groups = found
    state = first_state(model, groups, splits.calibration, repair=True, task=OWN)
    units = [torch.arange(group.units)[: group.units // 2] for group in groups]
    slim, batches = state.without(units), splits.calibration.batches
    before = mean_loss(slim.model, batches, OWN)
    assert refit(TeacherOutputs(model, batches, OWN), slim.model, slim.plan, slim.inverse_grams) > 0
    assert mean_loss(slim.model, batches, OWN) < before
    norm = next(m for m in slim.model.modules() if isinstance(m, nn.BatchNorm2d))
    expected = norm.running_mean.clone()
    norm.running_mean.add_(3)
    assert recalibrate_norms(slim.model, batches, OWN)
    assert torch.allclose(norm.running_mean, expected, atol=1)


def test_fine_tuning_takes_the_tasks_loss(found):
    model, splits, groups = found
    options = Options(
        max_drop=10, confidence=0.5, step=6, oracle_k=2, finetune_epochs=1, finetune_every=1
    )
    trajectory, _ = search(model, groups, splits, options, task=OWN)
    assert trajectory.fine_tunings
    assert all(told.learning_images == 112 for told in trajectory.fine_tunings.values())


def test_norm_statistics_of_batches_of_any_form():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(1, 3, 1), nn.BatchNorm2d(3)).eval()
    batches = [{"x": 5 + 2 * torch.randn(4, 1, 6, 6)} for _ in range(3)]
    task = Task(lambda network, batch: network(batch["x"]).mean(), lambda *_: 100.0)
    assert recalibrate_norms(model, batches, task)
    with torch.no_grad():
        read = model[0](torch.cat([batch["x"] for batch in batches]))
    assert torch.allclose(model[1].running_mean, read.mean((0, 2, 3)), atol=1e-5)
    assert torch.allclose(model[1].running_var, read.var((0, 2, 3)), rtol=1e-4)
