"""Image folders."""

import numpy as np
import pytest
import torch
from PIL import Image

from slimnet.data.images import open_folder, to_tensor
from slimnet.data.load import load_splits
from slimnet.errors import InputError
from slimnet.options import Options


def fill(folder, images=20, colour=100, size=(4, 4), classes=("cat", "dog")):
    for number, name in enumerate(classes):
        (folder / name).mkdir(parents=True)
        for index in range(images):
            image = Image.new("RGB", size, (colour + number, 0, 0))
            image.save(folder / name / f"{index}.png")
    return folder


def reds(split) -> set[int]:
    return {int(red) for images, _ in split.batches for red in images[:, 0, 0, 0]}


def test_class_folders_are_numbered_by_name(tmp_path):
    fill(tmp_path, classes=("zebra", "ant"))  # zebra is 100, ant is 101
    (tmp_path / ".hidden").mkdir()
    (tmp_path / "zebra" / ".hidden.png").write_text("x")
    (tmp_path / "zebra" / "notes.txt").write_text("x")
    splits = load_splits(tmp_path, Options(scale=1), confirm=True)
    assert splits.classes == 2
    assert splits.calibration.images + splits.selection.images + splits.confirmation.images == 40
    for images, labels in splits.confirmation.batches:
        assert torch.equal(images[:, 0, 0, 0], 101.0 - labels)


@pytest.mark.parametrize("held_out", ["val", "valid", "validation", "test"])
def test_calibration_comes_from_train_and_the_rest_from_held_out(tmp_path, held_out):
    fill(tmp_path / "train", colour=50)
    fill(tmp_path / held_out, colour=200)
    splits = load_splits(str(tmp_path), Options(scale=1, calibration_images=10), confirm=True)
    assert reds(splits.calibration) == {50, 51}
    assert reds(splits.selection) == reds(splits.confirmation) == {200, 201}
    assert [split.images for split in splits.all] == [10, 10, 30]
    assert f"{tmp_path}/train" in splits.description


def test_calibration_data_goes_before_the_own_train_part(tmp_path):
    fill(tmp_path / "data" / "train", colour=50)
    fill(tmp_path / "data" / "val", colour=200)
    other = fill(tmp_path / "other", colour=120)
    options = Options(scale=1, calibration_data=str(other))
    splits = load_splits(tmp_path / "data", options, confirm=True)
    assert reds(splits.calibration) == {120, 121}
    assert reds(splits.confirmation) == {200, 201}


def test_of_test_data_with_a_train_part_the_part_held_out_counts(tmp_path):
    """On images of a training part less would seem to be lost."""
    fill(tmp_path / "data", colour=50)
    fill(tmp_path / "other" / "train", colour=120)
    fill(tmp_path / "other" / "val", colour=200)
    options = Options(scale=1, test_data=str(tmp_path / "other"))
    splits = load_splits(tmp_path / "data", options, confirm=True)
    assert reds(splits.test) == {200, 201}
    assert reds(splits.selection) == reds(splits.confirmation) == {50, 51}
    fill(tmp_path / "differ", classes=("cat", "fox"))
    with pytest.raises(InputError, match="dog, fox"):
        load_splits(tmp_path / "data", Options(test_data=str(tmp_path / "differ")))


def test_a_class_may_be_called_train(tmp_path):
    fill(tmp_path, classes=("car", "train"))
    assert open_folder(tmp_path).held_out.class_names == ("car", "train")


def test_errors(tmp_path):
    (tmp_path / "none").mkdir()
    with pytest.raises(InputError, match="no class folders"):
        load_splits(tmp_path / "none", Options(), confirm=True)
    fill(tmp_path / "hollow")
    (tmp_path / "hollow" / "empty").mkdir()
    with pytest.raises(InputError, match="empty holds no images"):
        load_splits(tmp_path / "hollow", Options(), confirm=True)
    fill(tmp_path / "alone" / "train")
    with pytest.raises(InputError, match="none of val"):
        load_splits(tmp_path / "alone", Options(), confirm=True)
    fill(tmp_path / "differ" / "train", classes=("cat", "dog"))
    fill(tmp_path / "differ" / "val", classes=("cat", "fox"))
    with pytest.raises(InputError, match="dog, fox"):
        load_splits(tmp_path / "differ", Options(), confirm=True)
    fill(tmp_path / "other", classes=("cat", "fox"))
    options = Options(calibration_data=str(tmp_path / "other"))
    with pytest.raises(InputError, match="dog, fox"):
        load_splits(tmp_path / "alone" / "train", options, confirm=True)


def test_corrupt_image_is_named(tmp_path):
    fill(tmp_path)
    for path in (tmp_path / "dog").iterdir():
        path.write_bytes(path.read_bytes()[:40])
    with pytest.raises(InputError, match=r"dog/\d+\.png cannot be decoded"):
        list(load_splits(tmp_path, Options(), confirm=True).confirmation.batches)


def test_differing_sizes_need_size(tmp_path):
    fill(tmp_path)
    for path in (tmp_path / "dog").iterdir():
        Image.new("RGB", (8, 6)).save(path)
    with pytest.raises(InputError, match="--size N"):
        list(load_splits(tmp_path, Options(), confirm=True).confirmation.batches)
    for images, _ in load_splits(tmp_path, Options(size=5), confirm=True).confirmation.batches:
        assert images.shape[1:] == (3, 5, 5)


def test_every_mode_becomes_8_bit_rgb():
    grey = np.array([[0, 255], [128, 64]], dtype=np.uint8)
    wide = Image.fromarray(grey.astype(np.uint16) * 257)
    assert wide.mode.startswith("I")
    palette = Image.fromarray(grey).convert("P")
    palette.info["transparency"] = bytes(range(256))
    images = {
        "L": Image.fromarray(grey),
        "LA": Image.fromarray(grey).convert("LA"),
        "RGBA": Image.fromarray(grey).convert("RGBA"),
        "P": palette,
        "16": wide,
        "RGB": Image.fromarray(grey).convert("RGB"),
    }
    for mode, image in images.items():
        tensor = to_tensor(image)
        assert tensor.dtype == torch.uint8, mode
        assert torch.equal(tensor, torch.from_numpy(grey).expand(3, 2, 2)), mode
    assert to_tensor(images["L"], grey=True).shape == (1, 2, 2)


def test_rows_columns_and_channels_are_in_their_places():
    array = np.arange(2 * 3 * 3, dtype=np.uint8).reshape(2, 3, 3)
    tensor = to_tensor(Image.fromarray(array))
    assert tensor.shape == (3, 2, 3)
    assert tensor[2, 1, 0] == array[1, 0, 2]
