"""A rare class: losing much of it is said, and the balanced accuracy as the budget forbids it."""

import pytest
import torch
from torch import nn

import slimnet
from slimnet.records import Split, Splits

OPTIONS = {"objective": "params", "metrics": "l1_weight", "latency_samples": 2, "repair": False}


class Rare(nn.Module):
    """Class 1 where one of two channels is above 0: it needs both to find all of that class."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(1, 2, 1)
        self.head = nn.Linear(2, 2)
        with torch.no_grad():
            self.conv.weight.copy_(torch.tensor([1.0, -1.1]).view(2, 1, 1, 1))
            self.conv.bias.fill_(-0.5)
            self.head.weight.copy_(torch.tensor([[0.0, 0.0], [1.0, 1.0]]))
            self.head.bias.copy_(torch.tensor([0.1, 0.0]))

    def forward(self, images):
        return self.head(self.conv(images).relu().flatten(1))


def split(name, images):
    """Of a hundred images two are of class 1: one above 0, one below."""
    numbers = torch.arange(images) % 100
    values = torch.zeros(images)
    values[numbers == 0], values[numbers == 50] = 1.0, -1.0
    return Split(name, images, [(values.view(-1, 1, 1, 1), values.abs().long())])


@pytest.fixture(scope="module")
def splits():
    parts = {name: split(name, 4000) for name in ("calibration", "selection", "confirmation")}
    return Splits(**parts, test=None, description="signs", classes=2, preprocessing={})


def test_a_class_that_loses_half_its_images_is_named(splits):
    report = slimnet.compress(Rare(), splits, 5, **OPTIONS).report
    assert report.slim_size.parameters < report.original_size.parameters
    assert report.drop.points == pytest.approx(1.0)
    worst = report.class_drops[0]
    assert (worst.label, worst.drop.points, worst.drop.images) == (1, 50.0, 80)
    assert worst.drop.lower_points > 0
    assert any(note.startswith("class 1 lost more than twice the budget") for note in report.notes)


def test_the_balanced_accuracy_keeps_the_rare_class(splits):
    score = {"score": "balanced-accuracy"}
    report = slimnet.compress(Rare(), splits, 5, **OPTIONS, **score).report
    assert report.drop.quantity == "balanced accuracy"
    assert report.slim_size == report.original_size
    assert report.class_drops[0].drop.points == 0
    wide = slimnet.compress(Rare(), splits, 40, **OPTIONS, **score).report
    assert wide.slim_size.parameters < wide.original_size.parameters
    assert wide.drop.points == pytest.approx(25.0)
    assert "approximate" in wide.confirmation.test
