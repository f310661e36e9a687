"""BatchNorm re-calibration against PyTorch's own train mode and against means by hand."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn
from torch.nn import functional

from slimnet.data.batches import single_images
from slimnet.errors import InputError
from slimnet.groups.cut import slim_copy
from slimnet.groups.find import find_groups
from slimnet.groups.group import plan_for
from slimnet.load import FixedNorm
from slimnet.repair import norm_statistics
from slimnet.repair.norm_statistics import recalibrate_norms
from slimnet.tasks.classification import mean_loss


class Deep(nn.Module):
    """Norms behind one another, one used twice, one never, one without statistics, dropout."""

    def __init__(self):
        super().__init__()
        self.first = nn.BatchNorm2d(3)
        self.conv = nn.Conv2d(3, 5, 3)
        self.second = nn.BatchNorm2d(5, momentum=None)
        self.third = nn.BatchNorm1d(5, affine=False)
        self.unused = nn.BatchNorm1d(4)
        self.free = nn.BatchNorm2d(5, track_running_stats=False)
        self.drop = nn.Dropout(0.5)
        self.head = nn.Linear(5, 4)

    def forward(self, x):
        x = self.conv(torch.tanh(self.first(self.first(x))))
        x = self.drop(self.free(functional.relu(self.second(x))))
        return self.head(self.third(x.mean((2, 3))))


@pytest.fixture
def network():
    torch.manual_seed(0)
    model = Deep()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.uniform_(-1, 1)
    return model.eval()


@pytest.fixture
def batches():
    """Three batches of unequal size whose classes, in class order, look unlike one another."""
    generator = torch.Generator().manual_seed(1)
    labels = torch.arange(50) // 13
    inputs = torch.randn(50, 3, 6, 6, generator=generator) * (1 + labels[:, None, None, None])
    inputs += 3 * labels[:, None, None, None]
    return list(zip(inputs.split(20), labels.split(20), strict=True))


def state_of(model):
    return {k: v.clone() for k, v in model.state_dict().items()}


def by_hand(model, batches, mixed_images):
    """What each norm gets, all of it, in a copy whose norms (but no dropout) are in train mode."""
    copied, seen = copy.deepcopy(model), {}
    for name, module in copied.named_modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            module.train()
            module.register_forward_pre_hook(
                lambda _, x, name=name: seen.setdefault(name, []).append(x[0].double())
            )
    with torch.no_grad():
        for inputs, _ in single_images(batches).mixed(mixed_images):
            copied(inputs)
    values = {k: torch.cat([x.transpose(0, 1).flatten(1) for x in v], 1) for k, v in seen.items()}
    return {k: (v.mean(1), v.var(1)) for k, v in values.items()}


@pytest.mark.parametrize("size", [256, 15])
def test_statistics_are_of_all_that_a_norm_gets(network, batches, size, monkeypatch):
    monkeypatch.setattr(norm_statistics, "BATCH_IMAGES", size)
    expected = by_hand(network, batches, size)
    assert recalibrate_norms(network, batches)
    for name in ("first", "second", "third"):
        norm = network.get_submodule(name)
        mean, variance = expected[name]
        assert torch.allclose(norm.running_mean.double(), mean, rtol=1e-4, atol=1e-5)
        assert torch.allclose(norm.running_var.double(), variance, rtol=1e-4, atol=1e-5)


def test_in_one_batch_they_are_pytorchs_cumulative_average(trained):
    model, splits = trained
    batches = splits.calibration.batches
    theirs, ours = copy.deepcopy(model), copy.deepcopy(model)
    theirs[4].reset_running_stats()
    theirs[4].momentum = None
    theirs[4].train()
    with torch.no_grad():
        theirs(torch.cat([x for x, _ in batches]))
    recalibrate_norms(ours, batches)
    assert torch.allclose(ours[4].running_mean, theirs[4].running_mean, atol=1e-6)
    assert torch.allclose(ours[4].running_var, theirs[4].running_var, rtol=1e-5)
    assert ours[4].num_batches_tracked == theirs[4].num_batches_tracked == 1


def test_the_first_norm_does_not_depend_on_how_images_are_batched(batches, monkeypatch):
    inputs = torch.cat([x for x, _ in batches])
    for size in (3, 256):
        monkeypatch.setattr(norm_statistics, "BATCH_IMAGES", size)
        model = nn.Sequential(nn.BatchNorm2d(3), nn.Flatten(), nn.Linear(108, 4)).eval()
        recalibrate_norms(model, batches)
        assert torch.allclose(model[0].running_mean, inputs.mean((0, 2, 3)), rtol=1e-5)
        assert torch.allclose(model[0].running_var, inputs.var((0, 2, 3)), rtol=1e-5)
        assert model[0].num_batches_tracked == (17 if size == 3 else 1)


@pytest.mark.parametrize(("most", "passes"), [(10 * 108, 5), (3 * 108, 17), (1, 25)])
def test_large_maps_pass_a_few_images_at_a_time(batches, monkeypatch, most, passes):
    monkeypatch.setattr(norm_statistics, "MAX_ELEMENTS", most)
    model = nn.Sequential(nn.BatchNorm2d(3), nn.Flatten(), nn.Linear(108, 4)).eval()
    recalibrate_norms(model, batches)
    assert model[0].num_batches_tracked == passes


def test_only_statistics_of_norms_that_ran_change(network, batches):
    network.drop.train()
    network.requires_grad_(False)
    network.head.requires_grad_(True)
    before, random_state = state_of(network), torch.get_rng_state()
    options = [(m.training, getattr(m, "momentum", 0)) for m in network.modules()]
    recalibrate_norms(network, batches)
    changed = {k for k, v in network.state_dict().items() if not torch.equal(v, before[k])}
    kinds = ("running_mean", "running_var", "num_batches_tracked")
    assert changed == {f"{n}.{k}" for n in ("first", "second", "third") for k in kinds}
    assert [(m.training, getattr(m, "momentum", 0)) for m in network.modules()] == options
    assert torch.equal(torch.get_rng_state(), random_state)
    assert [p.requires_grad for p in network.parameters()] == [
        name.startswith("head") for name, _ in network.named_parameters()
    ]
    assert not any(m._forward_pre_hooks for m in network.modules())


def test_dropout_stays_off(network, batches):
    other = copy.deepcopy(network)
    recalibrate_norms(network, batches)
    torch.manual_seed(99)
    other.drop.train()
    recalibrate_norms(other, batches)
    assert all(torch.equal(v, state_of(other)[k]) for k, v in network.state_dict().items())


def test_a_slim_network_gains_by_it(trained):
    model, splits = trained
    groups, _ = find_groups(model, splits.calibration.batches[0][0][:2])
    slim = slim_copy(model, plan_for(groups, [torch.arange(3), torch.arange(0)]))
    before = mean_loss(slim, splits.selection.batches)
    assert recalibrate_norms(slim, splits.calibration.batches)
    assert mean_loss(slim, splits.selection.batches) < before


def test_a_network_without_such_norms_is_left_alone(images):
    model = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4, track_running_stats=False))
    before = state_of(model)
    assert recalibrate_norms(model, [(images, torch.zeros(6))]) is False
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())
    assert model.training


def test_a_single_value_per_channel_is_no_failure():
    model = nn.Sequential(nn.BatchNorm1d(3), nn.Linear(3, 2)).eval()
    assert recalibrate_norms(model, [(torch.ones(1, 3), torch.zeros(1, dtype=torch.int64))])
    assert model[0].running_mean.tolist() == [1, 1, 1]
    assert model[0].running_var.tolist() == [0, 0, 0]


def test_a_synchronised_norm_is_as_any_other(images):
    usual = nn.Sequential(nn.BatchNorm2d(3)).eval()
    synchronised = nn.Sequential(nn.SyncBatchNorm(3)).eval()
    for model in (usual, synchronised):
        recalibrate_norms(model, [(images, torch.zeros(6, dtype=torch.int64))])
    assert torch.equal(usual[0].running_mean, synchronised[0].running_mean)


def test_a_fixed_norm_has_no_statistics(images):
    model = nn.Sequential(FixedNorm(torch.rand(3), torch.rand(3)))
    before = state_of(model)
    assert recalibrate_norms(model, [(images, torch.zeros(6))]) is False
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())
    assert torch.equal(model.train()(images), model.eval()(images))


class Poisoned(nn.Module):
    def __init__(self, spoil):
        super().__init__()
        self.first, self.second, self.spoil = nn.BatchNorm2d(3), nn.BatchNorm2d(3), spoil

    def forward(self, x):
        return self.second(self.spoil(self.first(x)))


def raise_it(_):
    raise ValueError("broken\nby a test")


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (raise_it, "re-calibrating the BatchNorm statistics fails: ValueError: broken"),
        (lambda x: x / 0, "the BatchNorm second gets NaN or infinite values"),
    ],
)
def test_a_failure_leaves_the_network_as_it_was(images, spoil, message):
    model = Poisoned(spoil).train()
    before = state_of(model)
    with pytest.raises(InputError) as caught:
        recalibrate_norms(model, [(images, torch.zeros(6, dtype=torch.int64))])
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())
    assert all(module.training for module in model.modules())
    assert not any(m._forward_pre_hooks for m in model.modules())


def test_no_images_are_told():
    with pytest.raises(InputError, match="calibration split is empty"):
        recalibrate_norms(nn.Sequential(nn.BatchNorm2d(3)), [])
