"""Fine-tuning by a loss of the user's own, with the original's outputs to follow."""

import copy

import pytest
import torch
from torch import nn
from torch.nn import functional

from slimnet.errors import InputError
from slimnet.finetune.finetune import finetune, recovery_loss
from slimnet.finetune.training_data import make_training_data
from slimnet.options import FinetuneOptions
from slimnet.tasks.classification import CLASSIFICATION, mean_loss
from slimnet.tasks.task import Task

OWN = Task(CLASSIFICATION.loss, CLASSIFICATION.score)
OPTIONS = FinetuneOptions(finetune_epochs=3, learning_rate=0.05)


class Two(nn.Module):
    """Two outputs of very different scale; a third one in train mode if asked for."""

    def __init__(self, more=False):
        super().__init__()
        self.one, self.other, self.more = nn.Linear(3, 2), nn.Linear(3, 4), more

    def forward(self, x):
        found = {"one": self.one(x), "other": 1000 * self.other(x)}
        return {**found, "more": x} if self.more and self.training else found


def two_loss(model, batch):
    return functional.cross_entropy(model(batch["x"])["one"], batch["y"])


@pytest.fixture
def spoilt(trained):
    slim = copy.deepcopy(trained[0])
    with torch.no_grad():
        slim[3].weight.mul_(0.3)
    return slim


@pytest.mark.parametrize("share", [0.0, 0.5, 1.0])
def test_it_learns_and_is_kept(trained, spoilt, share):
    model, splits = trained
    options = FinetuneOptions(finetune_epochs=3, learning_rate=0.05, distill=share)
    before = mean_loss(spoilt, splits.selection.batches)
    told = finetune(spoilt, model, splits.calibration.batches, options, seed=0, task=OWN)
    assert told.kept
    assert mean_loss(spoilt, splits.selection.batches) < 0.9 * before
    assert told.epoch_losses_nats[-1] < told.epoch_losses_nats[0]
    assert told.augmentations == ()
    assert (told.learning_images, told.judging_images) == (112, 8)  # the eighth batch is short


def test_the_same_seed_gives_the_same_weights_and_the_original_stays(trained, spoilt):
    model, splits = trained
    before, other = copy.deepcopy(model.state_dict()), copy.deepcopy(spoilt)
    for network in (spoilt, other):
        finetune(network, model, splits.calibration.batches, OPTIONS, seed=3, task=OWN)
    pairs = zip(spoilt.state_dict().values(), other.state_dict().values(), strict=True)
    assert all(torch.equal(one, two) for one, two in pairs)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_every_eighth_batch_is_held_back_or_none_where_there_are_few(trained):
    model, splits = trained
    batches = [*splits.calibration.batches, *splits.selection.batches]  # 8 and 4

    def made(given):
        return make_training_data(model, given, OWN, batch_images=4, augment=True, seed=0)

    data = made(batches)
    assert [id(batch) for batch in data.held_out] == [id(batches[7])]
    learnt = [id(batch) for batch in data.epoch(torch.Generator())]
    assert learnt == [id(batch) for batch in batches[:7] + batches[8:]]
    few = made(batches[:3])
    assert len(list(few.held_out)) == len(list(few.epoch(torch.Generator()))) == 3


@pytest.mark.parametrize("share", [0.0, 0.25, 1.0])
def test_the_loss_is_the_tasks_and_relative_distances_of_all_outputs(share):
    torch.manual_seed(0)
    model, original = Two(), Two().eval()
    batch = {"x": torch.randn(5, 3), "y": torch.tensor([0, 1, 0, 1, 1])}
    task = Task(two_loss, lambda *_: 50.0)
    got = recovery_loss(model, original, batch, task, share)
    found, wanted = model(batch["x"]), original(batch["x"])
    apart = [
        (found[name] - wanted[name]).square().sum() / wanted[name].square().sum()
        for name in ("one", "other")
    ]
    expected = (1 - share) * two_loss(model, batch) + share * sum(apart) / 2
    assert torch.allclose(got, expected)
    got.backward()
    assert all(parameter.grad is None for parameter in original.parameters())


def test_outputs_that_only_training_has_are_refused():
    batch = {"x": torch.randn(5, 3), "y": torch.tensor([0, 1, 0, 1, 1])}
    task = Task(two_loss, lambda *_: 50.0)
    with pytest.raises(InputError, match="--distill 0"):
        finetune(Two(more=True), Two(more=True), [batch], OPTIONS, seed=0, task=task)
    plain = FinetuneOptions(finetune_epochs=1, distill=0)
    assert finetune(Two(more=True), Two(), [batch], plain, seed=0, task=task).epoch_losses_nats
