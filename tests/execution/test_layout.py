"""The layout of images and networks that the search runs over and over again."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from slimnet.execution.layout import Layout, best_layout, choose_layout, lay_out, lay_out_each
from slimnet.groups.find import find_groups
from slimnet.options import Options
from slimnet.records.data import Split
from slimnet.search.search import search
from slimnet.tasks.classification import CLASSIFICATION
from slimnet.tasks.task import Task


def test_layout_keeps_every_nth_image_and_all_labels():
    inputs = torch.arange(40).float().reshape(40, 1, 1, 1).expand(40, 2, 3, 3).contiguous()
    split = Split("calibration", 40, list(zip(inputs.split(16), torch.arange(40).split(16),
                                              strict=True)))  # fmt: skip
    everything = lay_out(split)
    assert everything.images == 40
    assert torch.cat([y for _, y in everything.batches]).tolist() == list(range(40))
    thin = lay_out(split, 10, Layout(torch.channels_last))
    assert thin.images <= 12
    for x, y in thin.batches:
        assert x.is_contiguous(memory_format=torch.channels_last)
        assert torch.equal(x[:, 0, 0, 0].long(), y)


def test_thinning_counts_over_small_batches():
    inputs, labels = torch.zeros(200, 1, 2, 2), torch.arange(200)
    split = Split("calibration", 200, list(zip(inputs.split(1), labels.split(1), strict=True)))
    thin = lay_out(split, 10)
    assert thin.images == 10
    assert torch.cat([y for _, y in thin.batches]).tolist() == list(range(0, 200, 20))


@pytest.mark.parametrize(("classes", "images"), [(4, 10), (10, 20), (10, 50), (6, 33)])
def test_thinning_leaves_out_no_class_where_they_come_in_turn(classes, images):
    labels = torch.arange(200) % classes
    inputs = torch.zeros(200, 1, 2, 2)
    split = Split("calibration", 200, list(zip(inputs.split(16), labels.split(16), strict=True)))
    thin = lay_out(split, images)
    assert images / 2 <= thin.images <= images
    assert len(thin.batches.labels.unique()) == classes
    (same,) = lay_out_each(split, (images,), None, CLASSIFICATION)
    assert torch.equal(same.batches.labels, thin.batches.labels)


def test_thinning_many_classes_takes_as_many_images_as_it_may():
    labels = torch.randperm(400, generator=torch.Generator().manual_seed(0)) % 90
    split = Split("calibration", 400, [(torch.zeros(400, 1, 2, 2), labels)])
    assert lay_out(split, 100).images == 100


def test_layouts_that_are_equal_share_their_memory():
    inputs, labels = torch.rand(40, 1, 2, 2), torch.arange(40)
    split = Split("calibration", 40, list(zip(inputs.split(16), labels.split(16), strict=True)))
    counts = (64, 40, 20)
    few, same, half = lay_out_each(split, counts, Layout(images=8), CLASSIFICATION)
    assert few is same
    assert half.batches.labels.tolist() == list(range(0, 40, 2))


class Viewed(nn.Module):
    """Flattens by a view, which channels-last tensors do not allow."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(1, 8, 3, padding=1)
        self.head = nn.Linear(8 * 8 * 8, 4)

    def forward(self, x):
        x = self.conv(x).relu()
        return self.head(x.view(x.size(0), -1))


def test_a_network_that_needs_the_usual_layout_gets_it(trained, residual, images):
    viewed = best_layout(Viewed(), trained[1].calibration.batches[0][0])
    assert viewed.memory_format is torch.contiguous_format
    assert best_layout(residual, images).memory_format is torch.channels_last
    flat = best_layout(nn.Linear(4, 2), torch.randn(3, 4))
    assert flat.memory_format is torch.contiguous_format


def test_batches_are_small_where_feature_maps_are_large():
    small = best_layout(nn.Conv2d(3, 4, 1), torch.randn(2, 3, 16, 16))
    wide = best_layout(nn.Conv2d(3, 256, 1), torch.randn(2, 3, 64, 64))
    assert (small.images, wide.images) == (128, 4)
    middle = best_layout(nn.Conv2d(3, 64, 1), torch.randn(2, 3, 16, 16))
    assert middle.images == 32


def test_a_viewing_network_can_be_searched(trained):
    torch.manual_seed(0)
    model, splits = Viewed().eval(), trained[1]
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    for _ in range(15):
        for x, y in splits.calibration.batches:
            optimizer.zero_grad()
            nn.functional.cross_entropy(model(x), y).backward()
            optimizer.step()
    groups, _ = find_groups(model, splits.calibration.batches[0][0][:2])
    options = Options(max_drop=10, confidence=0.5, step=2, oracle_k=4)
    trajectory, slim = search(model, groups, splits, options)
    assert trajectory.kept_steps
    assert all(p.requires_grad for p in slim.parameters())


def test_images_are_thinned_to_what_fits_in_memory():
    inputs, labels = torch.rand(40, 1, 2, 2), torch.arange(40)
    split = Split("calibration", 40, list(zip(inputs.split(16), labels.split(16), strict=True)))
    ten = 10 * 4 * 4
    assert lay_out(split, memory_bytes=ten) is split
    thin = lay_out(split, 30, memory_bytes=ten)
    assert torch.cat([y for _, y in thin.batches]).tolist() == list(range(0, 40, 4))
    few, same = lay_out_each(split, (30, 10), None, CLASSIFICATION, ten)
    assert few is same
    assert few.images == 10


def test_whole_batches_are_thinned_and_never_taken_apart():
    batches = [{"x": torch.rand(4, 3)} for _ in range(6)]
    split, own = Split("calibration", 24, batches), Task(lambda *_: None, lambda *_: 50.0)
    assert choose_layout(nn.Linear(3, 2), split, own) == Layout()
    everything, thin = lay_out_each(split, (100, 8), Layout(images=2), own, 1)
    assert [batch is batches[i] for i, batch in enumerate(everything.batches)] == [True] * 6
    taken = zip(thin.batches, (batches[0], batches[3]), strict=True)
    assert [batch is wanted for batch, wanted in taken] == [True] * 2
    assert (everything.images, thin.images) == (24, 8)
