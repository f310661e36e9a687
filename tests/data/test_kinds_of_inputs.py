"""Inputs that are no images: signals, videos, rows of a table, words; and labels in other forms."""

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.data import TensorDataset

from slimnet.data.check import check_pair
from slimnet.data.load import load_splits
from slimnet.errors import InputError
from slimnet.options import Options

SHAPES = {"signals": (2, 9), "videos": (1, 3, 4, 5), "rows": (7,), "lists": (3, 4)}
LABELS = torch.arange(60) % 3


def values(shape):
    return torch.randn(60, *shape, generator=torch.Generator().manual_seed(0))


class Arrays(TensorDataset):
    """Items of NumPy arrays, as many data sets give them."""

    def __getitem__(self, index):
        inputs, label = super().__getitem__(index)
        return inputs.numpy(), label.numpy()


def given(form, inputs, labels, folder):
    if form == "npz":
        np.savez(folder / "d.npz", inputs=inputs.numpy(), labels=labels.numpy())
        return folder / "d.npz"
    return (Arrays if form == "arrays" else TensorDataset)(inputs, labels)


def everything(splits):
    batches = [batch for split in splits.all for batch in split.batches]
    return tuple(torch.cat(parts) for parts in zip(*batches, strict=True))


@pytest.mark.parametrize("form", ["tensors", "arrays", "npz"])
@pytest.mark.parametrize("kind", SHAPES)
def test_inputs_of_any_shape_come_out_as_they_are(tmp_path, kind, form):
    inputs = values(SHAPES[kind])
    splits = load_splits(given(form, inputs, LABELS, tmp_path), Options())
    found, labels = everything(splits)
    assert found.shape == inputs.shape
    rows = {
        tuple(row.flatten().tolist()): int(label) for row, label in zip(inputs, LABELS, strict=True)
    }
    assert all(
        rows[tuple(r.flatten().tolist())] == y for r, y in zip(found, labels.tolist(), strict=True)
    )
    assert "image" not in splits.description


def test_words_stay_whole_numbers():
    words = torch.arange(240).view(60, 4)
    found, _ = everything(load_splits(TensorDataset(words, LABELS), Options()))
    assert found.dtype == torch.int64
    assert torch.equal(found.sort(0).values, words)
    with pytest.raises(InputError, match="scale is for pixels"):
        load_splits(TensorDataset(words, LABELS), Options(scale=0.5))


def test_mean_and_deviation_are_of_channels_whatever_follows_them():
    inputs = values((2, 9))
    options = Options(mean=(1.0, 2.0), std=(2.0, 4.0))
    found, _ = everything(load_splits(TensorDataset(inputs, LABELS), options))
    expected = (inputs - torch.tensor([[1.0], [2.0]])) / torch.tensor([[2.0], [4.0]])
    assert torch.allclose(found.sum(), expected.sum(), atol=1e-4)


def test_bytes_are_scaled_in_images_and_videos_alone():
    for shape, largest in (((1, 2, 2), 1), ((1, 3, 2, 2), 1), ((4,), 255), ((2, 4), 255)):
        inputs = torch.full((60, *shape), 255, dtype=torch.uint8)
        found, _ = everything(load_splits(TensorDataset(inputs, LABELS), Options()))
        assert float(found.max()) == largest


@pytest.mark.parametrize(
    ("shape", "changes", "told"),
    [
        ((2, 9), {"size": 8}, r"size 8 is for images .*; got inputs of the shape \(2, 9\)"),
        ((7,), {"preprocess": "imagenet"}, "preprocess imagenet is for images"),
        ((1, 3, 4, 5), {"channels": "bgr"}, "channels bgr is for images"),
        ((2, 9), {"mean": (1.0, 2.0, 3.0)}, "mean has one value a channel, 2 here"),
    ],
)
def test_options_for_images_are_refused(shape, changes, told):
    with pytest.raises(InputError, match=told):
        load_splits(TensorDataset(values(shape), LABELS), Options(**changes))


class Ragged(TensorDataset):
    """Signals that are of another length from item to item."""

    def __getitem__(self, index):
        inputs, label = super().__getitem__(index)
        return inputs[..., : 3 + index % 5], label


@pytest.mark.parametrize(
    ("data", "told"),
    [
        (Ragged(values((2, 9)), LABELS), "inputs differ in shape.*give all the same shape"),
        (TensorDataset(values((2, 9))[:5], LABELS[:5]), r"needs \d+ inputs or more"),
        (TensorDataset(values((2, 9)) * torch.nan, LABELS), "inputs hold NaN"),
        (TensorDataset(values((2, 9)), LABELS.float()), "whole number"),
        (TensorDataset(values((2, 9)), LABELS), r"fails on inputs of the shape \(2, 2, 9\)"),
    ],
)
def test_no_message_speaks_of_images(data, told):
    def use():
        splits = load_splits(data, Options())
        everything(splits)
        check_pair(nn.Conv1d(5, 3, 3), splits)

    with pytest.raises(InputError, match=told) as caught:
        use()
    assert "image" not in str(caught.value)
    assert "--size" not in str(caught.value)


@pytest.mark.parametrize("kind", [torch.int64, torch.float32, torch.bool])
@pytest.mark.parametrize("form", ["tensors", "arrays", "npz"])
def test_one_hot_labels_are_taken(tmp_path, form, kind):
    inputs, one_hot = values((7,)), nn.functional.one_hot(LABELS).to(kind)
    plain = everything(load_splits(given(form, inputs, LABELS, tmp_path), Options()))
    found = everything(load_splits(given(form, inputs, one_hot, tmp_path), Options()))
    assert all(torch.equal(one, other) for one, other in zip(plain, found, strict=True))


def test_a_column_of_labels_and_true_and_false_are_taken(tmp_path):
    inputs = values((7,))
    for form in ("tensors", "npz"):
        _, labels = everything(
            load_splits(given(form, inputs, LABELS[:, None], tmp_path), Options())
        )
        assert labels.bincount().tolist() == [20, 20, 20]
        _, yes = everything(load_splits(given(form, inputs, LABELS == 1, tmp_path), Options()))
        assert yes.bincount().tolist() == [40, 20]
