"""Data sets whose items have a form of their own, for a task of the user's own."""

import pytest
import torch
from torch.utils.data import Dataset, IterableDataset

from slimnet.data.load import load_splits
from slimnet.errors import InputError
from slimnet.options import Options


class Items(Dataset):
    def __init__(self, count, make=None):
        self.count, self.reads = count, 0
        self.make = make or (lambda i: {"x": torch.full((2,), float(i)), "at": (i, f"n{i}")})

    def __len__(self):
        return self.count

    def __getitem__(self, index):
        self.reads += 1
        return self.make(index)


def numbers(split):
    return torch.cat([batch["at"][0] for batch in split.batches]).tolist()


def load(data, **changes):
    return load_splits(data, Options(**changes), by_image=False, confirm=True)


def test_one_data_set_is_divided_and_collated_as_torch_does():
    splits = load(Items(60))
    parts = [numbers(split) for split in splits.all]
    assert [len(part) for part in parts] == [20, 10, 30]
    assert sorted(parts[0] + parts[1] + parts[2]) == list(range(60))
    batch = next(iter(splits.calibration.batches))
    assert batch["x"].shape == (2, 2)
    assert batch["at"][1] == tuple(f"n{i}" for i in parts[0][:2])
    assert parts == [numbers(split) for split in load(Items(60)).all]
    assert parts[0] != numbers(load(Items(60), seed=1).calibration)
    assert "20 for calibration, 10 for selection, 30 for confirmation" in splits.description


def three(items, options=None):
    """The batches of a calibration split of these items, as they were given."""
    splits = load_splits((items, items, items), options or Options(), by_image=False, confirm=True)
    return splits.calibration.batches


def test_there_are_sixteen_batches_where_items_allow_it():
    """The unit of a user's task is the batch: few large ones would say little of the drop."""
    for items, at_once, batches in ((100, 128, 16), (20, 128, 10), (100, 4, 25), (640, 8, 80)):
        made = three(Items(items), Options(batch_size=at_once))
        sizes = [len(batch["x"]) for batch in made]
        assert len(sizes) == batches
        assert max(sizes) - min(sizes) <= 1
        assert sum(sizes) == items


@pytest.mark.parametrize(("megabytes", "reads"), [(0.01, 8), (1 / 3, 8 + 5), (2, 16)])
def test_items_are_read_once_as_far_as_memory_allows(megabytes, reads):
    values = int(megabytes * 2**20) // 4
    items = Items(8, lambda i: {"x": torch.full((values,), float(i))})
    batches = three(items, Options(memory_mib=1))
    before = items.reads
    first, again = list(batches), list(batches)
    assert items.reads - before == reads
    assert all(torch.equal(a["x"], b["x"]) for a, b in zip(first, again, strict=True))


def test_batches_made_under_inference_mode_can_have_gradients():
    batches = three(Items(4))
    with torch.inference_mode():
        list(batches)
    assert not next(iter(batches))["x"].is_inference()


def test_calibration_data_and_three_data_sets(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "own.py").write_text(
        "import torch\n"
        "def train(): return [{'x': torch.zeros(2), 'at': (100 + i, '')} for i in range(9)]\n"
    )
    splits = load(Items(20), calibration_data="own.py:train", calibration_images=6)
    assert len(numbers(splits.calibration)) == 6
    assert min(numbers(splits.calibration)) >= 100
    assert sorted(numbers(splits.selection) + numbers(splits.confirmation)) == list(range(20))
    for confirm, parts in ((False, [4, 44, 6]), (True, [4, 11, 33, 6])):
        three = load_splits(
            (Items(4), Items(44), Items(6)), Options(), by_image=False, confirm=confirm
        )
        assert [split.images for split in three.all] == parts
        assert [numbers(s) for s in (three.calibration, three.test)] == [
            list(range(4)), list(range(6)),
        ]  # fmt: skip
        held_out = [number for split in three.all[1:-1] for number in numbers(split)]
        assert sorted(held_out) == list(range(44))
    with pytest.raises(InputError, match="makes one too"):
        load(Items(20), calibration_data=str(tmp_path))


def test_test_data_and_no_confirmation(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "own.py").write_text(
        "import torch\n"
        "def test(n=9): return [{'x': torch.zeros(2), 'at': (100 + i, '')} for i in range(n)]\n"
        "def one(): return test(1)\n"
        "class Changing(list):\n"
        "    def __getitem__(self, index): return {'x': torch.rand(2)}\n"
        "def changes(): return Changing(range(9))\n"
    )
    options = Options(test_data="own.py:test")
    splits = load_splits(Items(60), options, by_image=False)
    assert [split.images for split in splits.all] == [20, 40, 9]
    assert numbers(splits.test) == list(range(100, 109))
    assert load(Items(60), test_data="own.py:test").confirmation.images == 30
    for spec, message in (
        (str(tmp_path), "test_data for a data set is file.py:callable that makes one too"),
        ("own.py:one", "test split needs 2 items or more, but gets 1"),
        ("own.py:changes", "another item 0 each time"),
    ):
        with pytest.raises(InputError, match=message):
            load(Items(60), test_data=spec)
    with pytest.raises(InputError, match="leave test_data out"):
        load((Items(4), Items(44), Items(6)), test_data="own.py:test")


class Stream(IterableDataset):
    def __iter__(self):
        return iter([])


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (Items(5), r"calibration split needs 2 items or more, but gets 1 from Items"),
        (Stream(), "map-style"),
        (Items(20, lambda i: torch.rand(2)), "another item 0 each time"),
        (Items(20, lambda i: 1 / 0), "reading item 0 failed: ZeroDivisionError"),
    ],
)
def test_data_that_cannot_be_used_are_refused(data, message):
    with pytest.raises(InputError, match=message):
        load(data)


def test_items_of_other_sizes_are_told_where_they_are():
    batches = three(Items(8, lambda i: torch.zeros(2 + (i == 7))))
    with pytest.raises(InputError, match=r"cannot join items 6 to 7: .*same form and size"):
        list(batches)
