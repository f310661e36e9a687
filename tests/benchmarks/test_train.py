import io
import json
import zipfile
from argparse import Namespace

import numpy as np
import paper
import pytest
import torch
import train
import training_data
from PIL import Image

from slimnet.load.model import load_model
from slimnet.options import Options


def spots(count, seed):
    """Dark images (count, 32, 32, 3) whose class (10) is where a bright stripe is."""
    labels = np.arange(count) % 10
    images = np.random.default_rng(seed).integers(0, 60, (count, 32, 32, 3), np.uint8)
    for image, label in zip(images, labels, strict=True):
        image[3 * label : 3 * label + 4] += 150
    return images, labels


def save_zip(path, images, labels):
    with zipfile.ZipFile(path, "w") as archive:
        for part in ("train", "test"):
            for number, (image, label) in enumerate(zip(images, labels, strict=True)):
                content = io.BytesIO()
                Image.fromarray(image).save(content, "PNG")
                archive.writestr(f"{part}/class{label}/{number:03}.png", content.getvalue())


@pytest.fixture
def archive(tmp_path):
    images, labels = spots(20, 0)
    save_zip(tmp_path / "pictures.zip", images, labels)
    return tmp_path / "pictures.zip", images, labels


def test_a_zip_is_decoded_once_and_kept(archive, tmp_path):
    path, images, labels = archive
    data, held_out = training_data.read_data(str(path), None, tmp_path / "cache")
    order = np.argsort(labels, kind="stable")
    assert np.array_equal(data.images, images[order])
    assert np.array_equal(data.labels, labels[order])
    assert np.array_equal(held_out.labels, labels[order])
    path.write_bytes(b"gone")
    again, _ = training_data.read_data(str(path), None, tmp_path / "cache")
    assert np.array_equal(again.images, data.images)
    names = sorted(file.name for file in (tmp_path / "cache").iterdir())
    assert names == ["pictures_test.npz", "pictures_train.npz"]


def test_a_folder_and_a_zip_give_the_same(archive, tmp_path):
    path, _, _ = archive
    with zipfile.ZipFile(path) as files:
        files.extractall(tmp_path / "folder")
    one, _ = training_data.read_data(str(path), None, tmp_path / "a")
    other, _ = training_data.read_data(str(tmp_path / "folder"), None, tmp_path / "b")
    assert np.array_equal(one.images, other.images)
    assert np.array_equal(one.labels, other.labels)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ("nowhere.zip", "there is no nowhere.zip"),
        ("torchvision:NOTHING@root", "CIFAR10 or CIFAR100"),
        ("torchvision:CIFAR10@nowhere", "CIFAR10 or CIFAR100"),
    ],
)
def test_missing_data_is_refused_with_the_reason(data, message, tmp_path):
    with pytest.raises(training_data.DataError, match=message):
        training_data.read_data(data, None, tmp_path)


def test_inputs_are_what_slimnet_makes_of_the_same_pixels(tmp_path):
    from slimnet.data.load import load_splits

    images, labels = spots(90, 0)
    np.savez(tmp_path / "data.npz", images=images, labels=labels)
    splits = load_splits(
        tmp_path / "data.npz", Options(channels="bgr", scale=paper.SCALE, mean=paper.MEAN)
    )
    ours = training_data.prepared(torch.from_numpy(images), "nin")
    theirs = next(iter(splits.selection.batches))[0][0]
    assert float((ours - theirs).abs().amax((1, 2, 3)).min()) < 1e-6
    assert ours.is_contiguous(memory_format=torch.channels_last)


def test_augmentation_crops_and_mirrors():
    pixels = torch.arange(40 * 40 * 3).reshape(1, 40, 40, 3).repeat(64, 1, 1, 1)
    found = training_data.augmented(pixels, torch.Generator().manual_seed(0))
    assert found.shape == (64, 32, 32, 3)
    steps = {int(image[0, 1, 0] - image[0, 0, 0]) for image in found}
    assert steps == {3, -3}
    corners = {tuple(divmod(int(image[..., 0].min()) // 3, 40)) for image in found}
    assert all(0 <= row <= 8 and 0 <= column <= 8 for row, column in corners)
    assert len(corners) > 30


def test_learning_rate_rises_and_falls():
    assert train.learning_rate(1.0, 0.01) == pytest.approx(0.5)
    assert train.learning_rate(1.0, 0.5) == pytest.approx(0.5)
    assert train.learning_rate(1.0, 1.0) == pytest.approx(0)


def test_training_learns_and_saves_weights_that_slimnet_loads(tmp_path, capsys):
    images, labels = spots(60, 0)
    np.savez(tmp_path / "data.npz", images=images, labels=labels)
    data = str(tmp_path / "data.npz")
    call = ["lenet5", "--data", data, "--held-out", data, "--out", str(tmp_path / "out"),
            "--batch-size", "20", "--learning-rate", "0.01"]  # fmt: skip
    train.main([*call, "--epochs", "6"])
    record = json.loads((tmp_path / "out" / "lenet5.json").read_text())
    assert record["epochs"] == 6
    assert record["test_accuracy_percent"] > 15
    first = (tmp_path / "out" / "lenet5.pt").read_bytes()
    loaded = load_model(
        tmp_path / "out" / "lenet5.pt", Options(arch=f"{paper.ARCHITECTURES}:lenet5")
    )
    right = train.accuracy_percent(loaded.model, training_data.Images(images, labels), "lenet5")
    assert right == pytest.approx(record["test_accuracy_percent"], abs=0.01)
    train.main([*call, "--epochs", "6"])
    assert (tmp_path / "out" / "lenet5.pt").read_bytes() == first
    assert sorted(file.name for file in (tmp_path / "out").iterdir()) == [
        "lenet5.json",
        "lenet5.pt",
    ]


def test_training_ends_in_time_and_in_eval_mode():
    data = training_data.Images(*spots(40, 0))
    model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(3072, 10))
    options = Namespace(
        network="lenet5", epochs=10**6, seconds=0.2, batch_size=16,
        learning_rate=0.01, weight_decay=0, seed=0,
    )  # fmt: skip
    epochs, seconds = train.train(model, data, options)
    assert 0.2 <= seconds < 5
    assert 0 < epochs < 10**6
    assert not model.training


def test_weights_do_not_go_into_the_repository(tmp_path, capsys):
    inside = paper.RESULTS / "weights"
    with pytest.raises(SystemExit):
        train.main(["lenet5", "--data", "x.zip", "--out", str(inside)])
    assert "outside the repository" in capsys.readouterr().err
