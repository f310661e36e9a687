"""Network and data are tried on one another before any long work."""

from dataclasses import replace

import pytest
import torch
from torch import nn

from slimnet.data.check import check_pair
from slimnet.errors import InputError
from slimnet.records.data import Split, Splits


def splits(classes=None, shape=(3, 4, 4), highest=1, batch=5, kind=torch.int64):
    torch.manual_seed(0)
    images = torch.rand(10, *shape)

    def split(name, labels):
        return Split(name, 10, list(zip(images.split(batch), labels.split(batch), strict=True)))

    plain, last = (torch.arange(10, dtype=kind) % 2 for _ in range(2))
    last[-1] = highest
    parts = (split("calibration", plain), split("selection", plain), split("test", last))
    return Splits(*parts, "", classes, {})


def network(outputs=2):
    return nn.Sequential(nn.Conv2d(3, 2, 3), nn.BatchNorm2d(2), nn.Flatten(), nn.Linear(8, outputs))


@pytest.mark.parametrize("batch", [1, 5])
def test_gives_two_images_and_leaves_the_model(batch):
    model = network().eval()
    before = {key: value.clone() for key, value in model.state_dict().items()}
    data = splits(classes=2, batch=batch)
    example = check_pair(model, data)
    first = torch.cat([images for images, _ in data.calibration.batches])[:2]
    assert torch.equal(example, first)
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())
    assert all(parameter.grad is None for parameter in model.parameters())


class Gives(nn.Module):
    def __init__(self, output):
        super().__init__()
        self.output = output

    def forward(self, images):
        return self.output


@pytest.mark.parametrize(
    ("model", "data", "message"),
    [
        (network(), splits(shape=(1, 4, 4)), r"shape \(2, 1, 4, 4\): RuntimeError: .*channels"),
        (network(), splits(shape=(3, 9, 9)), r"shape \(2, 3, 9, 9\).*--size"),
        (Gives({"out": 1}), splits(), "got a dict"),
        (Gives(torch.zeros(2, 3, 4)), splits(), r"got \(2, 3, 4\)"),
        (Gives(torch.zeros(3, 2)), splits(), r"got \(3, 2\)"),
        (Gives(torch.full((2, 2), torch.nan)), splits(), "NaN"),
        (network(3), splits(classes=2), "3 outputs but the data have 2"),
        (network(2), splits(highest=-100), "test split holds the label -100.*from 0 to 1"),
        (network(2), splits(kind=torch.int32), "calibration split are int64; got torch.int32"),
        (network(2), splits(highest=2), "test split holds the label 2.*from 0 to 1"),
        (network(1), splits(highest=2), "one output, the logit of class 1.*from 0 to 1; .*--task"),
        (network(1), splits(classes=3), "one output, .* but the data have 3 classes"),
    ],
)
def test_errors(model, data, message):
    with pytest.raises(InputError, match=message) as caught:
        check_pair(model.eval(), data)
    assert "\n" not in str(caught.value)


def test_empty_and_single_image_splits_are_refused_in_one_line():
    image, label = torch.rand(1, 3, 4, 4), torch.zeros(1, dtype=torch.int64)
    full = splits()
    one = replace(full, calibration=Split("calibration", 1, [(image, label)]))
    with pytest.raises(InputError, match=r"calibration split needs 2 inputs or more.*got 1"):
        check_pair(network().eval(), one)
    empty = replace(full, test=Split("test", 0, []))
    with pytest.raises(InputError, match="the test split is empty; give images for it"):
        check_pair(network().eval(), empty)


@pytest.mark.parametrize("axes", [1, 2])
def test_one_output_is_a_logit_but_no_probability(axes):
    images = torch.rand(64, 3, 4, 4)
    labels = torch.arange(64) % 2
    split = Split("calibration", 64, [(images, labels)])
    data = Splits(split, split, split, "", 2, {})
    torch.manual_seed(0)
    logits = nn.Sequential(*network(1), *[nn.Flatten(0)] * (axes == 1)).eval()
    assert logits(images).ndim == axes
    assert len(check_pair(logits, data)) == 2
    with pytest.raises(InputError, match="0 to 1 on all of 64 inputs, as behind a sigmoid"):
        check_pair(nn.Sequential(*logits, nn.Sigmoid()).eval(), data)
