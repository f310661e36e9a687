"""torchvision's own data sets."""

import pytest
import torch

from slimnet.data.load import load_splits
from slimnet.errors import InputError
from slimnet.options import Options


def numbers(split) -> list[int]:
    found = torch.cat([images[:, 0, 0, 0] for images, _ in split.batches])
    assert len(found) == split.images
    return found.int().tolist()


def test_torchvision_without_files_says_that_nothing_is_downloaded(tmp_path):
    with pytest.raises(InputError, match="nothing is downloaded"):
        load_splits(f"torchvision:CIFAR10@{tmp_path}", Options(), confirm=True)
    with pytest.raises(InputError, match="did you mean 'CIFAR10'"):
        load_splits(f"torchvision:CIFAR1@{tmp_path}", Options(), confirm=True)
    with pytest.raises(InputError, match="NAME@ROOT"):
        load_splits("torchvision:CIFAR10", Options(), confirm=True)


def test_torchvision_parts_are_train_and_test(tmp_path, monkeypatch):
    import torchvision
    from PIL import Image

    class Fake:
        classes = ("a", "b")

        def __init__(self, root, train, download):
            assert not download
            self.value = 200 if train else 100
            self.targets = [0, 1] * (30 if train else 20)

        def __len__(self):
            return len(self.targets)

        def __getitem__(self, index):
            return Image.new("RGB", (2, 2), (self.value,) * 3), self.targets[index]

    monkeypatch.setattr(torchvision.datasets, "CIFAR10", Fake)
    splits = load_splits(f"torchvision:CIFAR10@{tmp_path}", Options(scale=1), confirm=True)
    assert set(numbers(splits.calibration)) == {200}
    assert set(numbers(splits.selection) + numbers(splits.confirmation)) == {100}
    assert splits.classes == 2
    assert [splits.calibration.images, splits.confirmation.images] == [60, 30]
