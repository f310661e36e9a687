"""Every form of data becomes disjoint splits."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch.utils.data import TensorDataset

from slimnet.data.load import load_splits
from slimnet.errors import InputError
from slimnet.options import Options


def arrays(images: int = 60, classes: int = 3, start: int = 0):
    """Make 2 x 2 images whose every pixel is their own number, so that each can be found again."""
    pixels = np.arange(start, start + images, dtype=np.float32)
    return np.broadcast_to(pixels[:, None, None, None], (images, 2, 2, 3)).copy(), (
        np.arange(images) % classes
    )


def save(path, images, labels):
    np.savez(path, images=images, labels=labels)
    return path


def numbers(split) -> list[int]:
    found = torch.cat([images[:, 0, 0, 0] for images, _ in split.batches])
    assert len(found) == split.images
    return found.int().tolist()


def test_one_set_gives_a_third_for_calibration_and_a_quarter_of_the_rest_for_selection(tmp_path):
    splits = load_splits(save(tmp_path / "d.npz", *arrays()), Options(), confirm=True)
    three = (splits.calibration, splits.selection, splits.confirmation)
    assert [split.images for split in three] == [20, 10, 30]
    assert [split.name for split in three] == ["calibration", "selection", "confirmation"]
    assert splits.test is None
    assert sorted(number for split in three for number in numbers(split)) == list(range(60))
    assert "20 of the 60" in splits.description
    assert "selection and confirmation: 10 and 30 images, the other 40;" in splits.description
    assert splits.classes is None
    for split in three:
        for images, labels in split.batches:
            assert images.dtype == torch.float32
            assert labels.dtype == torch.int64
            assert torch.equal(images[:, 0, 0, 0].int() % 3, labels.int())


def test_calibration_images_bounds_the_calibration_split(tmp_path):
    path = save(tmp_path / "d.npz", *arrays())
    splits = load_splits(path, Options(calibration_images=12), confirm=True)
    assert [split.images for split in splits.all] == [12, 12, 36]


def test_calibration_data_keeps_all_of_data_for_selection_and_confirmation(tmp_path):
    train = save(tmp_path / "train.npz", *arrays(40, start=1000))
    held_out = save(tmp_path / "test.npz", *arrays(41))
    splits = load_splits(
        held_out, Options(calibration_data=str(train), calibration_images=15), confirm=True
    )
    assert len(numbers(splits.calibration)) == 15
    assert min(numbers(splits.calibration)) >= 1000
    assert sorted(numbers(splits.selection) + numbers(splits.confirmation)) == list(range(41))
    assert "15 of the 40" in splits.description


def test_calibration_data_that_is_data_is_refused(tmp_path):
    path = save(tmp_path / "d.npz", *arrays())
    with pytest.raises(InputError, match="are both"):
        load_splits(path, Options(calibration_data=f"{tmp_path}/./d.npz"), confirm=True)


def test_seed_decides_and_passes_repeat(tmp_path):
    path = save(tmp_path / "d.npz", *arrays())
    one, again, other = (
        load_splits(str(path), Options(seed=seed), confirm=True) for seed in (1, 1, 2)
    )
    assert numbers(one.confirmation) == numbers(again.confirmation) == numbers(one.confirmation)
    assert numbers(one.confirmation) != numbers(other.confirmation)


@pytest.mark.parametrize("images", [9, 27])
def test_too_few_images_says_how_many_are_needed(tmp_path, images):
    with pytest.raises(InputError, match="selection split needs 10 images or more"):
        load_splits(save(tmp_path / "d.npz", *arrays(images)), Options(), confirm=True)


def test_a_network_is_tried_on_two_calibration_images(tmp_path):
    path, held_out = (save(tmp_path / f"{n}.npz", *arrays(n)) for n in (1, 40))
    with pytest.raises(
        InputError, match=r"calibration split needs 2 images or more, but gets 1 from the 1 of"
    ):
        load_splits(held_out, Options(calibration_data=str(path)), confirm=True)
    splits = load_splits(save(tmp_path / "d.npz", *arrays(29)), Options(), confirm=True)
    assert [splits.calibration.images, splits.selection.images] == [9, 10]
    assert "9 calibration images rank channels badly" in splits.description


def test_one_image_a_class_is_enough_and_is_said():
    """A paired drop needs images, not classes: ImageNet with one image a class is 1,000 images."""
    few, plenty = (tuple(dataset(40, classes=classes) for _ in range(3)) for classes in (40, 15))
    said = "holds fewer than 2 images of {0} of its {0} classes"
    confirmed, estimated = (
        load_splits(few, Options(), confirm=confirm).description for confirm in (True, False)
    )
    assert f"confirmation {said.format(30)}" in confirmed
    assert f"selection {said.format(40)}" in estimated
    for confirm in (True, False):
        assert "fewer" not in load_splits(plenty, Options(), confirm=confirm).description


def dataset(images: int = 60, start: int = 0, classes: int = 3) -> TensorDataset:
    pixels, labels = arrays(images, classes, start)
    return TensorDataset(torch.tensor(pixels).permute(0, 3, 1, 2), torch.tensor(labels))


def test_three_data_sets_stay_as_they_are():
    data = (dataset(10), dataset(11, 100), dataset(12, 200))
    splits = load_splits(data, Options())
    assert numbers(splits.calibration) == list(range(10))
    assert numbers(splits.selection) == list(range(100, 111))
    assert numbers(splits.test) == list(range(200, 212))
    assert splits.confirmation is None
    assert "10 for calibration" in splits.description
    for name in ("calibration_data", "test_data"):
        for given in (data, splits):
            with pytest.raises(InputError, match=f"leave {name} out"):
                load_splits(given, Options(**{name: "x.npz"}))
    assert load_splits(splits, Options()) is splits


def test_to_confirm_the_second_of_three_data_sets_is_divided():
    data = (dataset(10), dataset(44, 100), dataset(12, 200))
    splits = load_splits(data, Options(), confirm=True)
    assert [split.images for split in splits.all] == [10, 11, 33, 12]
    assert numbers(splits.calibration) == list(range(10))
    assert sorted(numbers(splits.selection) + numbers(splits.confirmation)) == list(range(100, 144))
    assert numbers(splits.test) == list(range(200, 212))
    assert "of the second selection and confirmation: 11 and 33 images" in splits.description
    assert load_splits(splits, Options(), confirm=True) is splits
    with pytest.raises(InputError, match="selection split needs 10 images or more, but gets 9"):
        load_splits((dataset(10), dataset(19), dataset(12)), Options(), confirm=True)


def test_ready_splits_without_confirmation_are_refused_to_confirm():
    splits = load_splits((dataset(10), dataset(11), dataset(12)), Options())
    with pytest.raises(InputError, match="have no confirmation split: add one, or take confidence"):
        load_splits(splits, Options(), confirm=True)


def test_ready_splits_are_named_by_their_purpose():
    """Measurements are found again by these names."""
    splits = load_splits((dataset(10), dataset(44), dataset(12)), Options(), confirm=True)
    renamed = splits.mapped(lambda split: replace(split, name="mine"))
    found = load_splits(renamed, Options(), confirm=True)
    assert [split.name for split in found.all] == [
        "calibration", "selection", "confirmation", "test",
    ]  # fmt: skip
    assert [split.batches for split in found.all] == [split.batches for split in splits.all]
    assert renamed.test.name == "mine"


def test_without_confirmation_all_images_held_out_are_for_selection(tmp_path):
    splits = load_splits(save(tmp_path / "d.npz", *arrays()), Options())
    assert [split.images for split in splits.all] == [20, 40]
    assert splits.confirmation is splits.test is None
    assert sorted(numbers(splits.calibration) + numbers(splits.selection)) == list(range(60))
    assert "; selection: 40 images, the other 40;" in splits.description


@pytest.mark.parametrize("confirm", [True, False])
def test_test_data_are_a_split_of_their_own(tmp_path, confirm):
    """They decide nothing, so all of them count, and the others are divided as without them."""
    path = save(tmp_path / "d.npz", *arrays())
    test = save(tmp_path / "test.npz", *arrays(13, start=1000))
    without = load_splits(path, Options(), confirm=confirm)
    splits = load_splits(path, Options(test_data=str(test)), confirm=confirm)
    assert numbers(splits.test) == list(range(1000, 1013))
    assert splits.test.name == "test"
    assert splits.description.startswith(without.description)
    assert splits.description.endswith(f"; test: the 13 images of {test}")
    for split, same in zip(splits.all, without.all, strict=False):
        assert numbers(split) == numbers(same)


def test_test_data_that_cannot_be_used_are_refused(tmp_path):
    path = save(tmp_path / "d.npz", *arrays())
    few = save(tmp_path / "few.npz", *arrays(9))
    for spec, message in (
        (f"{tmp_path}/./d.npz", "test_data and data are both"),
        (few, "test split needs 10 images or more, but gets 9"),
        (tmp_path / "none.npz", "none.npz"),
    ):
        with pytest.raises(InputError, match=message):
            load_splits(path, Options(test_data=str(spec)), confirm=True)


def test_callable_in_a_file(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.py").write_text(
        "import torch\n"
        "from torch.utils.data import TensorDataset as T\n"
        "def one(n=60): return T(torch.rand(n, 3, 2, 2), torch.arange(n) % 2)\n"
        "def three(): return one(10), one(11), one(12)\n"
        "def fails(): raise OSError('no disk')\n"
        "def text(): return 7\n"
    )
    assert load_splits("mine.py:one", Options(), confirm=True).confirmation.images == 30
    assert load_splits("mine.py:three", Options()).test.images == 12
    splits = load_splits(dataset(), Options(calibration_data="mine.py:one"), confirm=True)
    assert [splits.calibration.images, splits.confirmation.images] == [60, 45]
    assert load_splits(dataset(), Options(test_data="mine.py:one"), confirm=True).test.images == 60
    for target, message in (("fails", "OSError: no disk"), ("text", "got a int"), ("x", "no 'x'")):
        with pytest.raises(InputError, match=message):
            load_splits(f"mine.py:{target}", Options(), confirm=True)
