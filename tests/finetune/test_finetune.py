"""Fine-tuning: it recovers, does the same for the same seed, and touches only what it may."""

import copy
import math
from dataclasses import replace
from importlib import import_module

import pytest
import torch
from torch import nn

from slimnet.data.batches import IndexedBatches, Items
from slimnet.errors import InputError
from slimnet.finetune.finetune import (
    finetune,
    make_optimizer,
    norm_scales,
    rate_at,
    recovery_loss,
)
from slimnet.groups.cut import slim_copy
from slimnet.groups.find import find_groups
from slimnet.groups.group import plan_for
from slimnet.groups.prove import prove_slim
from slimnet.options import FinetuneOptions
from slimnet.repair.norm_statistics import recalibrate_norms
from slimnet.tasks.classification import CLASSIFICATION, mean_loss

MODULE = import_module("slimnet.finetune.finetune")
OPTIONS = FinetuneOptions(finetune_epochs=2)


@pytest.fixture(autouse=True)
def small_batches(monkeypatch):
    monkeypatch.setattr(MODULE, "BATCH_IMAGES", 32)


def state_of(model):
    return {k: v.clone() for k, v in model.state_dict().items()}


def same_state(model, state):
    return all(torch.equal(v, state[k]) for k, v in model.state_dict().items())


@pytest.fixture
def slim(trained):
    """What is left of the trained network without half of its channels, not repaired."""
    model, splits = trained
    groups, _ = find_groups(model, splits.calibration.batches[0][0][:2])
    return slim_copy(model, plan_for(groups, [torch.arange(4), torch.arange(3)]))


def test_a_slim_network_recovers(trained, slim):
    model, splits = trained
    selection = splits.selection.batches
    before = mean_loss(slim, selection)
    done = finetune(slim, model, splits.calibration.batches, OPTIONS, seed=0)
    assert done.kept
    assert done.loss_after_nats < done.loss_before_nats
    assert len(done.epoch_losses_nats) == 2
    assert done.epoch_losses_nats[1] < done.epoch_losses_nats[0]
    assert mean_loss(slim, selection) < 0.7 * before
    assert (done.learning_images, done.judging_images) == (105, 15)


@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
def test_the_seed_alone_decides(trained, slim, optimizer):
    model, splits = trained
    slim.insert(6, nn.Dropout(0.3)).eval()
    options = replace(OPTIONS, optimizer=optimizer)
    networks = [copy.deepcopy(slim) for _ in range(3)]
    outcomes = []
    for number, (network, seed) in enumerate(zip(networks, (7, 7, 8), strict=True)):
        torch.manual_seed(number)
        outcomes.append(finetune(network, model, splits.calibration.batches, options, seed=seed))
    assert all(outcome.kept for outcome in outcomes)
    assert not same_state(networks[0], state_of(slim))
    assert same_state(networks[1], state_of(networks[0]))
    assert not same_state(networks[2], state_of(networks[0]))
    assert outcomes[0] == outcomes[1] != outcomes[2]


def test_the_seed_decides_dropout_and_augmentation(trained, slim, monkeypatch):
    """With all images in one step their order says nothing: what is left is random otherwise."""
    model, splits = trained
    monkeypatch.setattr(MODULE, "BATCH_IMAGES", 1000)
    options = replace(OPTIONS, finetune_epochs=1, augment=False)

    def trains(options, *extra):
        found = []
        for seed in (1, 2):
            network = copy.deepcopy(nn.Sequential(*extra, *slim)).eval()
            finetune(network, model, splits.calibration.batches, options, seed=seed)
            found.append(network[-1].weight.detach())
        return found

    one, other = trains(options)
    assert torch.allclose(one, other, atol=1e-6)
    assert not torch.allclose(*trains(options, nn.Dropout(0.5)), atol=1e-6)
    assert not torch.allclose(*trains(replace(options, augment=True)), atol=1e-6)


def test_nothing_else_changes(trained, slim):
    model, splits = trained
    original = copy.deepcopy(model).train()  # a careless caller's
    batches = [(x.clone(), y.clone()) for x, y in splits.calibration.batches]
    slim.eval()[4].train()
    slim[0].weight.requires_grad_(False)
    slim[3].weight.grad = kept = torch.ones_like(slim[3].weight)
    before, random_state = state_of(original), torch.get_rng_state()
    finetune(slim, original, batches, OPTIONS, seed=0)
    assert same_state(original, before)
    assert all(module.training for module in original.modules())
    assert all(p.grad is None and p.requires_grad for p in original.parameters())
    assert torch.equal(torch.get_rng_state(), random_state)
    assert [module.training for module in slim] == [i == 4 for i in range(9)]
    assert not slim[0].weight.requires_grad
    assert slim[3].weight.requires_grad
    assert slim[3].weight.grad is kept
    assert torch.equal(kept, torch.ones_like(kept))
    assert slim[0].weight.grad is None
    for (x, y), (old_x, old_y) in zip(batches, splits.calibration.batches, strict=True):
        assert torch.equal(x, old_x)
        assert torch.equal(y, old_y)


def test_weights_without_gradients_are_trained_too(trained, slim):
    model, splits = trained
    before = state_of(slim.requires_grad_(False))
    with torch.no_grad():
        finetune(slim, model, splits.calibration.batches, OPTIONS, seed=0)
    assert not any(torch.equal(p, before[name]) for name, p in slim.named_parameters())
    assert not any(p.requires_grad for p in slim.parameters())


def test_batches_that_were_made_in_inference_mode_can_be_trained_on(trained, slim):
    model, splits = trained
    with torch.inference_mode():
        batches = [(x.clone(), y.clone()) for x, y in splits.calibration.batches]
    assert finetune(slim, model, batches, OPTIONS, seed=0).kept


def test_images_that_are_not_in_memory_give_the_same_weights(trained, slim):
    model, splits = trained
    other, given = copy.deepcopy(slim), splits.calibration.batches
    finetune(slim, model, given, OPTIONS, seed=3)
    inputs, labels = (torch.cat(part) for part in zip(*given, strict=True))
    read = Items(lambda index: inputs[index], lambda images, _: torch.stack(images), 70 * 64 * 4)
    batches = IndexedBatches(read, torch.arange(120).split(16), labels, by_image=True)
    finetune(other, model, batches, OPTIONS, seed=3)
    assert same_state(other, state_of(slim))


def test_what_comes_out_is_still_the_masked_original(trained):
    model, splits = trained
    inputs = splits.calibration.batches[0][0][:2]
    groups, _ = find_groups(model, inputs)
    plan = plan_for(groups, [torch.arange(4), torch.arange(3)])
    slim = slim_copy(model, plan)
    assert finetune(slim, model, splits.calibration.batches, OPTIONS, seed=0).kept
    assert recalibrate_norms(slim, splits.calibration.batches)
    prove_slim(model, slim, plan, inputs)


def linear_pair(seed=0):
    """An original, and a network that is surer than it and wrong; inputs are vectors."""
    generator = torch.Generator().manual_seed(seed)
    original, model = (nn.Sequential(nn.Linear(6, 4)).eval() for _ in range(2))
    with torch.no_grad():
        for network, scale in ((original, 0.5), (model, 4.0)):
            for parameter in network.parameters():
                parameter.copy_(scale * torch.randn(parameter.shape, generator=generator))
    inputs = torch.randn(160, 6, generator=generator)
    labels = torch.randint(4, (160,), generator=generator)  # of no meaning
    return model, original, [(inputs[:100], labels[:100]), (inputs[100:], labels[100:])]


def test_distillation_alone_leads_to_the_original_whatever_the_labels_say(monkeypatch):
    model, original, batches = linear_pair()
    monkeypatch.setattr(MODULE, "BATCH_IMAGES", 50)
    options = FinetuneOptions(finetune_epochs=60, learning_rate=0.3, distill=1)
    inputs = batches[0][0]

    def distance():
        with torch.no_grad():
            return float((model(inputs).softmax(1) - original(inputs).softmax(1)).abs().mean())

    before = distance()
    done = finetune(model, original, batches, options, seed=0)
    assert done.kept
    assert done.augmentations == ()  # these are no images
    assert done.epoch_losses_nats[-1] < 1e-3
    assert distance() < 0.02 * before


def test_without_distillation_the_original_is_not_used():
    model, original, batches = linear_pair()
    other = copy.deepcopy(model)
    options = FinetuneOptions(finetune_epochs=3, distill=0)
    finetune(model, original, batches, options, seed=0)
    finetune(other, nn.Sequential(nn.Linear(6, 4)), batches, options, seed=0)
    assert same_state(other, state_of(model))


@pytest.mark.parametrize("share", [0.0, 0.3, 1.0])
def test_the_loss_is_hintons(share):
    model, original, [(inputs, labels), _] = linear_pair()
    with torch.no_grad():
        scores, wanted = model(inputs).double(), original(inputs).double()
        expected = 0.0
        for row, target, label in zip(scores, wanted, labels, strict=True):
            hard = torch.log(row.exp().sum()) - row[label]
            p, q = (target / 2).softmax(0), (row / 2).softmax(0)
            expected += float((1 - share) * hard + share * 4 * (p * (p / q).log()).sum())
    loss = recovery_loss(model, original, (inputs, labels), CLASSIFICATION, share)
    assert loss.item() == pytest.approx(expected / len(labels), rel=1e-4)
    loss.backward()
    assert model[0].weight.grad is not None
    assert original[0].weight.grad is None


def test_l1_shrinks_the_scales_of_norms_and_nothing_else_is_counted(trained, slim):
    model, splits = trained
    plain, sparse = copy.deepcopy(slim), copy.deepcopy(slim)
    batches = splits.calibration.batches
    usual = finetune(plain, model, batches, OPTIONS, seed=0)
    pressed = finetune(sparse, model, batches, replace(OPTIONS, norm_scale_l1=0.1), seed=0)
    assert usual.kept
    assert pressed.kept
    assert sparse[4].weight.abs().sum() < 0.99 * plain[4].weight.abs().sum()
    # the penalty itself is about 0.5 nats here
    assert pressed.epoch_losses_nats[0] == pytest.approx(usual.epoch_losses_nats[0], abs=0.1)


def test_scales_of_all_kinds_of_norms_are_found():
    norms = [nn.BatchNorm2d(2), nn.GroupNorm(1, 3), nn.LayerNorm(4), nn.InstanceNorm2d(5)]
    model = nn.Sequential(nn.Conv2d(3, 2, 1), *norms)
    assert [len(scale) for scale in norm_scales(model)] == [2, 3, 4]


@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
def test_weight_decay_is_for_weights_only(optimizer):
    model = nn.Sequential(
        nn.Conv2d(1, 2, 3), nn.LayerNorm((2, 6, 6)), nn.BatchNorm2d(2), nn.PReLU(2),
        nn.Flatten(), nn.Linear(72, 4),
    )  # fmt: skip
    nn.init.ones_(model[2].bias)
    options = FinetuneOptions(optimizer=optimizer, learning_rate=0.1, weight_decay=0.5)
    before = state_of(model)
    made = make_optimizer(model, options)
    for parameter in model.parameters():
        parameter.grad = torch.zeros_like(parameter)
    made.step()
    changed = {k for k, v in model.state_dict().items() if not torch.equal(v, before[k])}
    assert changed == {"0.weight", "5.weight"}
    # 1 - rate · decay, and with Nesterov momentum 0.9 once more of it in the first step
    share = 1 - 0.05 * (1.9 if optimizer == "sgd" else 1)
    assert torch.allclose(model[5].weight, share * before["5.weight"])


def test_long_gradients_are_cut(trained, slim, monkeypatch):
    model, splits = trained
    monkeypatch.setattr(MODULE, "BATCH_IMAGES", 1000)
    options = replace(
        OPTIONS, finetune_epochs=1, learning_rate=0.1, weight_decay=0.0, augment=False
    )
    lengths = []
    for limit in (1e-3, math.inf):
        network = copy.deepcopy(slim)
        monkeypatch.setattr(MODULE, "MAX_GRADIENT_NORM", limit)
        finetune(network, model, splits.calibration.batches, options, seed=0)
        moves = [a - b for a, b in zip(network.parameters(), slim.parameters(), strict=True)]
        lengths.append(math.sqrt(sum(float(move.detach().square().sum()) for move in moves)))
    assert lengths[0] == pytest.approx(0.1 * 1.9 * 1e-3, rel=1e-2)
    assert lengths[1] > 10 * lengths[0]


def test_a_training_that_makes_it_worse_is_undone_and_told(trained, monkeypatch):
    model, splits = trained
    slim, before = copy.deepcopy(model), state_of(model)
    batches = [(x, y) for x, y in splits.calibration.batches]
    monkeypatch.setattr(MODULE, "MAX_GRADIENT_NORM", 100.0)
    options = replace(OPTIONS, learning_rate=3.0)
    done = finetune(slim, model, batches, options, seed=0)
    assert not done.kept
    assert done.loss_after_nats > done.loss_before_nats
    assert "held back rose from" in done.undone_because
    assert same_state(slim, before)


def test_a_training_that_diverges_is_undone_and_told(monkeypatch):
    model, original, batches = linear_pair()
    before = state_of(model)
    monkeypatch.setattr(MODULE, "BATCH_IMAGES", 10)
    options = FinetuneOptions(
        finetune_epochs=9, optimizer="adamw", learning_rate=1e3, weight_decay=1e3
    )
    done = finetune(model, original, batches, options, seed=0)
    assert not done.kept
    assert "the loss became" in done.undone_because
    assert "lower learning rate" in done.undone_because
    assert not math.isfinite(done.epoch_losses_nats[-1])
    assert len(done.epoch_losses_nats) < 9
    assert same_state(model, before)


def test_a_training_ends_with_the_first_loss_that_is_not_finite(trained, slim, monkeypatch):
    model, splits = trained
    passes = []

    def spoil(module, _, output):
        if module.training:
            passes.append(len(output))
        return output / 0 if len(passes) == 5 else output

    slim.register_forward_hook(spoil)
    monkeypatch.setattr(MODULE, "BATCH_IMAGES", 15)
    options = replace(OPTIONS, finetune_epochs=3)
    done = finetune(slim, model, splits.calibration.batches, options, seed=0)
    assert passes == [15] * 5  # of the seven in an epoch
    assert "in epoch 1" in done.undone_because


def test_the_mode_a_network_comes_in_makes_no_difference(trained, slim):
    model, splits = trained
    other = copy.deepcopy(slim.eval()).train()
    outcomes = [
        finetune(network, model, splits.calibration.batches, OPTIONS, seed=0)
        for network in (slim, other)
    ]
    assert outcomes[0] == outcomes[1]
    assert same_state(other, state_of(slim))


def test_the_first_step_is_as_long_as_the_options_say(trained, slim, monkeypatch):
    model, splits = trained
    monkeypatch.setattr(MODULE, "BATCH_IMAGES", 1000)
    monkeypatch.setattr(MODULE, "WARMUP_SHARE", 0.5)
    options = FinetuneOptions(finetune_epochs=4, optimizer="adamw", weight_decay=0.0)
    heads = []
    slim.register_forward_pre_hook(
        lambda module, _: heads.append(module[-1].weight.detach().clone()) and None
    )
    finetune(slim, model, splits.calibration.batches, options, seed=0)
    heads = heads[1:]  # the first pass only measures the loss
    # Adam's first step has the length of the rate in every weight; warm-up halves it here
    assert (heads[1] - heads[0]).abs().max().item() == pytest.approx(0.5 * 5e-4, rel=1e-2)


class Failing(nn.Module):
    """Changes a buffer that is not saved, then raises in the n-th pass in train mode."""

    def __init__(self, inner, error, passes):
        super().__init__()
        self.inner, self.error, self.passes = inner, error, passes
        self.register_buffer("count", torch.zeros(()), persistent=False)

    def forward(self, x):
        if self.training:
            self.count += 1
            if self.count == self.passes:
                raise self.error
        return self.inner(x)


@pytest.mark.parametrize("passes", [1, 4])
@pytest.mark.parametrize("error", [RuntimeError("no\nbackward"), KeyboardInterrupt()])
def test_a_failure_leaves_the_network_as_it_was(trained, slim, passes, error):
    model, splits = trained
    failing = Failing(slim, error, passes).eval().requires_grad_(False)
    before, random_state = state_of(failing), torch.get_rng_state()
    kind = KeyboardInterrupt if isinstance(error, KeyboardInterrupt) else InputError
    with pytest.raises(kind) as caught:
        finetune(failing, model, splits.calibration.batches, OPTIONS, seed=0)
    if kind is InputError:
        assert "train mode and fails: RuntimeError: no; leave fine-tuning out" in str(caught.value)
        assert caught.value.__cause__ is error
    assert same_state(failing, before)
    assert failing.count == 0
    assert not any(module.training for module in failing.modules())
    assert not any(p.requires_grad or p.grad is not None for p in failing.parameters())
    assert torch.equal(torch.get_rng_state(), random_state)


def test_a_network_whose_loss_is_not_finite_is_refused():
    model, original, batches = linear_pair()
    with torch.no_grad():
        model[0].bias[0] = math.nan
    with pytest.raises(InputError, match="the loss on the calibration split is nan"):
        finetune(model, original, batches, OPTIONS, seed=0)


def test_no_images_are_told():
    with pytest.raises(InputError, match="calibration split is empty"):
        finetune(nn.Linear(2, 2), nn.Linear(2, 2), [], OPTIONS, seed=0)


def test_one_image_is_enough_for_a_network_without_norms():
    model, original, [(inputs, labels), _] = linear_pair()
    done = finetune(model, original, [(inputs[:1], labels[:1])], OPTIONS, seed=0)
    assert (done.learning_images, done.judging_images) == (1, 1)


def test_the_rate_rises_and_then_falls_to_nothing():
    options = FinetuneOptions(learning_rate=2.0)
    rates = [rate_at(step, 100, options) for step in range(100)]
    assert rates[0] == pytest.approx(0.4)
    assert max(range(100), key=rates.__getitem__) == 4
    assert rates[4] == pytest.approx(2 * (1 + math.cos(0.04 * math.pi)) / 2)
    assert rates[4:] == sorted(rates[4:], reverse=True)
    assert rates[-1] < 0.001
    assert rate_at(0, 1, FinetuneOptions()) == 0.01
    assert rate_at(0, 1, FinetuneOptions(optimizer="adamw")) == 5e-4
