"""Calibration images by index: the right ones, mixed, however many fit in memory."""

from __future__ import annotations

import pytest
import torch

from slimnet.recover import calibration_images
from slimnet.recover.calibration_images import CalibrationImages


def numbered(labels, size=7):
    """Batches whose images hold their own number."""
    inputs = torch.arange(len(labels)).float()[:, None, None, None].expand(-1, 1, 2, 2)
    return list(zip(inputs.split(size), labels.split(size), strict=True))


@pytest.mark.parametrize("labels", [torch.arange(160) // 16, torch.arange(160) % 8])
def test_the_images_held_back_have_all_classes_in_proportion(labels):
    """In class order, as folders are, and in turns, where every eighth image is of one class."""
    images = CalibrationImages(numbered(labels))
    learning, held_back = images.divided()
    assert torch.equal(torch.cat([learning, held_back]).sort().values, torch.arange(160))
    assert torch.equal(learning, learning.sort().values)
    counts = torch.bincount(labels[held_back])
    assert len(held_back) == 20
    assert len(counts) == len(labels.unique())
    assert counts.max() - counts.min() <= 1


def test_few_images_both_teach_and_judge():
    learning, held_back = CalibrationImages(numbered(torch.arange(7))).divided()
    assert learning.tolist() == held_back.tolist() == list(range(7))


@pytest.mark.parametrize("most", [2**20, 4 * 20, 4 * 3, 1])
def test_batches_hold_the_images_asked_for(monkeypatch, most):
    monkeypatch.setattr(calibration_images, "MOST_ELEMENTS", most)
    labels = torch.arange(50) % 3
    images = CalibrationImages(numbered(labels))
    order = torch.randperm(50, generator=torch.Generator().manual_seed(0))[:41]
    batches = images.batches(order, 10)
    for _ in range(2):  # again and again the same
        found = list(batches)
        assert [len(y) for _, y in found] == [9, 8, 8, 8, 8]
        assert torch.equal(torch.cat([x for x, _ in found])[:, 0, 1, 1].long(), order)
        assert torch.equal(torch.cat([y for _, y in found]), labels[order])


def test_images_are_held_without_a_copy_or_not_at_all(monkeypatch):
    batches = [(torch.zeros(4, 1, 2, 2), torch.zeros(4, dtype=torch.int64)) for _ in range(3)]
    reads = []

    class Counted:
        def __iter__(self):
            reads.append(1)
            return iter(batches)

    images = CalibrationImages(Counted())
    before = len(reads)
    list(images.batches(torch.arange(12), 4))
    assert len(reads) == before
    assert images._held[5].data_ptr() == batches[1][0][1].data_ptr()
    monkeypatch.setattr(calibration_images, "MOST_ELEMENTS", 4 * 8)
    images = CalibrationImages(Counted())
    before = len(reads)
    list(images.batches(torch.arange(12), 4))
    assert images._held is None
    assert len(reads) == before + 2  # eight images at a time


def test_mixed_batches_hold_the_classes_in_proportion():
    labels = torch.arange(100) // 10
    images = CalibrationImages(numbered(labels))
    order = images.mixed(30)
    assert torch.equal(order.sort().values, torch.arange(100))
    for _, found in images.batches(order, 30):
        counts = torch.bincount(found, minlength=10)
        assert counts.max() - counts.min() <= 1


def test_the_memory_format_is_kept():
    inputs = torch.randn(6, 3, 4, 4).contiguous(memory_format=torch.channels_last)
    images = CalibrationImages([(inputs, torch.zeros(6, dtype=torch.int64))])
    for batch, _ in images.batches(torch.tensor([5, 0, 2]), 3):
        assert batch.is_contiguous(memory_format=torch.channels_last)
