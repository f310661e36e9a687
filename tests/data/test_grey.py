"""A network that takes grey images gets grey images, whatever the files hold."""

import pytest
import torch
from PIL import Image
from torch import nn

from slimnet.data.check import check_pair
from slimnet.data.load import load_splits
from slimnet.errors import InputError
from slimnet.options import Options

RED = round(0.299 * 200)


@pytest.fixture
def folder(tmp_path):
    for name in ("cat", "dog"):
        (tmp_path / name).mkdir()
        for index in range(20):
            Image.new("RGB", (4, 4), (200, 0, 0)).save(tmp_path / name / f"{index}.png")
    return tmp_path


def network(channels):
    return nn.Sequential(nn.Conv2d(channels, 2, 4), nn.Flatten()).eval()


def test_grey_network_gets_luma(folder):
    splits = load_splits(folder, Options(scale=1, mean=(0.0,)), network(1), confirm=True)
    for images, _ in splits.confirmation.batches:
        assert images.shape[1:] == (1, 4, 4)
        assert set(images.flatten().tolist()) == {RED}
    assert splits.preprocessing["channels"] == "grey"
    assert "colours made grey" in splits.description
    check_pair(network(1), splits)


def test_flat_network_of_as_many_pixels_gets_grey(folder):
    flat = nn.Sequential(nn.Flatten(), nn.Linear(16, 2))
    check_pair(flat, load_splits(folder, Options(), flat, confirm=True))


@pytest.mark.parametrize("channels", [3, 5])
def test_any_other_network_gets_colours(folder, channels):
    splits = load_splits(folder, Options(), network(channels), confirm=True)
    assert next(iter(splits.confirmation.batches))[0].shape[1:] == (3, 4, 4)
    assert splits.preprocessing["channels"] == "rgb"


def test_what_the_user_says_holds(folder):
    options = Options(channels="bgr")
    splits = load_splits(folder, options, network(1), confirm=True)
    with pytest.raises(InputError, match="channels"):
        check_pair(network(1), splits)
    three = tuple(torch.rand(20, 3, 4, 4) for _ in range(3))
    grey = load_splits(three, Options(channels="grey", labels="none"), confirm=True)
    assert next(iter(grey.confirmation.batches))[0].shape[1:] == (1, 4, 4)
