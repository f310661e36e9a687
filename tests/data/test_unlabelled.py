"""Without labels the network's own answers stand for them, whatever the data are read from."""

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file
from torch import nn
from torch.utils.data import Dataset, TensorDataset

from slimnet.data.batches import labels_of
from slimnet.data.check import check_pair
from slimnet.data.load import load_splits
from slimnet.errors import InputError
from slimnet.options import Options
from slimnet.records.data import Split, Splits

NONE = Options(labels="none", scale=1)


class Brightest(nn.Module):
    """Answers which channel is the brightest; counts the images that it has seen."""

    def __init__(self):
        super().__init__()
        self.images = 0

    def forward(self, images):
        self.images += len(images)
        return images.flatten(2).mean(2)


def colours(images=60):
    """Make 2 x 2 images, each bright in one channel: (images, 3, 2, 2) uint8 and the channel."""
    channel = torch.arange(images) % 3
    pixels = torch.zeros(images, 3, 2, 2, dtype=torch.uint8)
    pixels[torch.arange(images), channel] = 100 + torch.arange(images)[:, None, None].byte()
    return pixels, channel


class Bare(Dataset):
    def __len__(self):
        return 60

    def __getitem__(self, index):
        return colours()[0][index]


def write_images(folder, names):
    folder.mkdir(parents=True)
    for pixels, name in zip(colours()[0], names, strict=False):
        Image.fromarray(pixels.permute(1, 2, 0).numpy()).save(folder / name)
    return folder


def made(kind, tmp_path):
    pixels = colours()[0]
    path = tmp_path / f"d.{kind}"
    if kind == "npz":
        np.savez(path, images=pixels.numpy())
    elif kind == "pt":
        torch.save({"images": pixels}, path)
    elif kind == "safetensors":
        save_file({"images": pixels}, path)
    elif kind == "folder":
        return write_images(tmp_path / "flat", [f"{i:02}.png" for i in range(60)])
    elif kind == "nested folder":
        write_images(tmp_path / "deep" / "b" / "c", [f"{i:02}.png" for i in range(60)])
        return tmp_path / "deep"
    elif kind == "labels that are not looked at":
        path = tmp_path / "labels.npz"
        np.savez(path, images=pixels.numpy(), labels=np.full(60, -7.5))
    else:
        return {
            "bare items": Bare(),
            "a tensor": pixels,
            "items of one": TensorDataset(pixels),
            "items of two": TensorDataset(pixels, torch.full((60,), 99)),
        }[kind]
    return path


SOURCES = [
    "npz", "pt", "safetensors", "folder", "nested folder", "labels that are not looked at",
    "bare items", "a tensor", "items of one", "items of two",
]  # fmt: skip


@pytest.mark.parametrize("kind", SOURCES)
def test_every_source_gets_the_answers_as_labels(tmp_path, kind):
    network = Brightest()
    splits = load_splits(made(kind, tmp_path), NONE, network, confirm=True)
    assert network.images == 60 + 2 + 2  # each once, and two for the channels and the shape
    assert [split.images for split in splits.all] == [20, 10, 30]
    found = [batch for split in splits.all for batch in split.batches]
    images, labels = (torch.cat(part) for part in zip(*found, strict=True))
    assert torch.equal(labels, images.flatten(2).mean(2).argmax(1))
    assert labels.dtype == torch.int64
    assert sorted(images.amax((1, 2, 3)).int().tolist()) == list(range(100, 160))
    assert torch.equal(
        labels_of(splits.confirmation.batches),
        torch.cat([y for _, y in splits.confirmation.batches]),
    )
    assert "no labels" in splits.description
    assert "at random" in splits.description
    assert "proportion" not in splits.description
    check_pair(network, splits)


def test_train_and_val_of_plain_images(tmp_path):
    names = [f"{i:02}.png" for i in range(60)]
    write_images(tmp_path / "train", names)
    write_images(tmp_path / "val", names[:40])
    splits = load_splits(tmp_path, NONE, Brightest(), confirm=True)
    assert [split.images for split in splits.all] == [60, 10, 30]
    (tmp_path / "val").rename(tmp_path / "other")
    with pytest.raises(InputError, match=r"none of val.* with images"):
        load_splits(tmp_path, NONE, Brightest(), confirm=True)


def test_calibration_data_needs_no_labels_either(tmp_path):
    options = Options(labels="none", scale=1, calibration_data=str(made("npz", tmp_path)))
    splits = load_splits(Bare(), options, Brightest(), confirm=True)
    assert [split.images for split in splits.all] == [60, 15, 45]


def test_ready_splits_lose_their_labels_and_stay_as_they_are():
    pixels = colours()[0].float()
    parts = [Split(n, 60, [(pixels, torch.full((60,), -1))]) for n in "abcd"]
    given = Splits(
        *parts[:3], description="mine", classes=7, preprocessing={}, confirmation=parts[3]
    )
    splits = load_splits(given, NONE, Brightest(), confirm=True)
    assert len(splits.all) == 4
    for split in splits.all:
        assert labels_of(split.batches).tolist() == colours()[1].tolist()
    assert splits.classes is None
    assert int(labels_of(given.selection.batches)[0]) == -1


def test_answers_can_be_trained_with():
    torch.manual_seed(0)
    network = nn.Sequential(nn.Flatten(), nn.Linear(12, 3))
    splits = load_splits(colours()[0], Options(labels="none"), network, confirm=True)
    inputs, labels = next(iter(splits.calibration.batches))
    nn.functional.cross_entropy(network(inputs), labels).backward()


class Always(nn.Module):
    def __init__(self, bias):
        super().__init__()
        self.bias = torch.tensor(bias)

    def forward(self, images):
        return self.bias.expand(len(images), -1) * (1 + images.flatten(1).sum(1, keepdim=True))


class Fails(nn.Module):
    def forward(self, images):
        if images.amax() > 120:
            return torch.full((len(images), 2), torch.nan)
        return images.flatten(2).mean(2)


@pytest.mark.parametrize(
    ("network", "told"),
    [
        (
            Always([0.0, 1.0, 0.5]),
            "answers class 1 for all 10 of the selection split.*--mean",
        ),
        (nn.Conv2d(5, 3, 1), r"fails on images of the shape \(2, 3, 2, 2\)"),
        (Fails(), "NaN or infinite scores on the"),
    ],
)
def test_a_network_that_cannot_label_is_refused(network, told):
    with pytest.raises(InputError, match=told) as caught:
        load_splits(Bare(), NONE, network, confirm=True)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("kind", ["npz", "pt", "safetensors", "folder", "bare items", "a tensor"])
def test_who_forgets_the_option_is_told(tmp_path, kind):
    with pytest.raises(InputError, match="--labels none"):
        load_splits(made(kind, tmp_path), Options(), Brightest(), confirm=True)


def test_bad_data_are_refused_without_labels_too(tmp_path):
    (tmp_path / "empty").mkdir()
    np.savez(tmp_path / "x.npz", x=np.zeros(3))
    cases = [
        (tmp_path / "empty", "holds no images"),
        (tmp_path / "x.npz", "must hold arrays images; it holds x"),
        (colours(9)[0], "needs 10 images"),
        (torch.zeros(0, 3, 2, 2), "holds no items"),
    ]
    for data, told in cases:
        with pytest.raises(InputError, match=told):
            load_splits(data, NONE, Brightest(), confirm=True)
