"""Live data sets are taken as they are, or refused."""

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import DataLoader, Dataset, IterableDataset, Subset, TensorDataset

from slimnet.data.load import load_splits
from slimnet.errors import InputError
from slimnet.options import Options


def arrays(images: int = 60, classes: int = 3, start: int = 0):
    """Make 2 x 2 images whose every pixel is their own number, so that each can be found again."""
    pixels = np.arange(start, start + images, dtype=np.float32)
    return np.broadcast_to(pixels[:, None, None, None], (images, 2, 2, 3)).copy(), (
        np.arange(images) % classes
    )


def numbers(split) -> list[int]:
    found = torch.cat([images[:, 0, 0, 0] for images, _ in split.batches])
    assert len(found) == split.images
    return found.int().tolist()


def dataset(images: int = 60, start: int = 0) -> TensorDataset:
    pixels, labels = arrays(images, start=start)
    return TensorDataset(torch.tensor(pixels).permute(0, 3, 1, 2), torch.tensor(labels))


class Items(Dataset):
    def __init__(self, item, images=40):
        self.item, self.images = item, images

    def __len__(self):
        return self.images

    def __getitem__(self, index):
        return self.item(index) if callable(self.item) else self.item


class Endless(IterableDataset):
    def __iter__(self):
        return iter(())


def bad_item(index):
    raise KeyError("gone")


IMAGE = torch.zeros(3, 2, 2)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (Endless(), "map-style"),
        (Items("x"), "got str"),
        (Items((IMAGE,)), r"got \(Tensor\)"),
        (Items(({}, 1)), r"got \(dict, int\); .*--task"),
        (Items((Image.new("L", (2, 2)), 1)), r"got \(Image, int\); .*ToTensor"),
        (Items((np.array(["text"]), 1)), "an input is numbers; got <U4"),
        (Items((IMAGE, 1.0)), "whole number; item 0 has a float"),
        (
            Items((IMAGE, torch.tensor([0.5, 0.5]))),
            r"a Tensor of torch.float32 and the shape \(2,\)",
        ),
        (Items((IMAGE, torch.tensor(1.0))), r"Tensor of torch.float32 and the shape \(\).*--task"),
        (Items((IMAGE, torch.tensor([1, 2]))), r"a Tensor of torch.int64 and the shape \(2,\)"),
        (Items((IMAGE, "cat")), "whole number; item 0 has a str"),
        (Items((IMAGE, -1)), "0 or more"),
        (Items((IMAGE.sum(), 1)), r"item 0: an input has one axis or more"),
        (Items((IMAGE.long(), 1)), "uint8 or float"),
        (Items((IMAGE * torch.nan, 1)), "NaN"),
        (Items(bad_item), "item 0 failed: KeyError"),
        (Items(lambda i: (torch.rand(3, 2, 2), 1)), "random augmentation"),
        (7, "got a int"),
    ],
)
def test_bad_live_data(data, message):
    with pytest.raises(InputError, match=message):
        load_splits(data, Options(), confirm=True)


def test_targets_that_disagree_with_the_items():
    data = Items((IMAGE, 1))
    data.targets = [2] * 40
    with pytest.raises(InputError, match="targets says 2"):
        list(load_splits(data, Options(), confirm=True).confirmation.batches)


def test_images_that_differ_in_shape_need_size():
    data = Items(lambda i: (torch.zeros(3, 4 + i, 4), i % 2))
    with pytest.raises(InputError, match="--size N"):
        list(load_splits(data, Options(), confirm=True).confirmation.batches)
    images, _ = next(iter(load_splits(data, Options(size=3), confirm=True).confirmation.batches))
    assert images.shape[1:] == (3, 3, 3)


def test_subset_is_a_data_set_too():
    splits = load_splits(Subset(dataset(), range(30)), Options(), confirm=True)
    assert splits.confirmation.images == 10


def test_live_data_set():
    splits = load_splits(dataset(), Options(), confirm=True)
    three = (splits.calibration, splits.selection, splits.confirmation)
    assert sorted(number for split in three for number in numbers(split)) == list(range(60))


@pytest.mark.parametrize("many", [2, 4])
def test_data_sets_are_one_or_three(many):
    with pytest.raises(InputError, match=f"one data set, or three.*got {many}"):
        load_splits(tuple(dataset() for _ in range(many)), Options(), confirm=True)


def test_of_a_loader_the_data_set_is_asked_for():
    with pytest.raises(InputError, match=r"got a DataLoader: give its data set .loader\.dataset"):
        load_splits(DataLoader(dataset()), Options(), confirm=True)
