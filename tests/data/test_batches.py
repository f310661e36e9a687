"""Batches repeat, are cached up to a limit, and give the parts that are asked for."""

import pytest
import torch

from slimnet.data.batches import (
    IndexedBatches,
    Items,
    hardest_first,
    in_memory,
    labels_of,
    single_images,
    whole_batches,
)
from slimnet.errors import InputError

SHAPE = (1, 2, 2)
IMAGE_BYTES = 4 * 4


class Counted:
    def __init__(self):
        self.reads = 0

    def __call__(self, index):
        self.reads += 1
        return torch.full(SHAPE, float(index))


class Passes:
    """Batches that can only be iterated over, and how often they were."""

    def __init__(self, batches):
        self.batches, self.passes = batches, 0

    def __iter__(self):
        self.passes += 1
        return iter(self.batches)


def read_by(read, memory_bytes=10_000):
    items = Items(read, lambda images, _: torch.stack(images), memory_bytes)
    parts = torch.tensor([7, 1, 5, 3, 9]).split(2)
    return IndexedBatches(items, parts, torch.arange(10), by_image=True)


def given(labels, size=7):
    """Batches in a list, whose images hold their own number."""
    inputs = torch.arange(len(labels)).float()[:, None, None, None].expand(-1, *SHAPE)
    return list(zip(inputs.split(size), labels.split(size), strict=True))


def every_kind(labels, size=7):
    inputs = torch.cat([x for x, _ in given(labels)])
    items = Items(lambda index: inputs[index], lambda images, _: torch.stack(images), 5 * 16)
    parts = torch.arange(len(labels)).split(size)
    return [
        single_images(given(labels, size)),
        single_images(Passes(given(labels, size))),
        in_memory(inputs, labels, size),
        IndexedBatches(items, parts, labels, by_image=True),
    ]


def listed(batches):
    return [(images.flatten(1)[:, 0].tolist(), labels.tolist()) for images, labels in batches]


def numbers(batches):
    return [int(number) for images, _ in batches for number in images[:, 0, 1, 1]]


def test_batches_in_the_order_of_the_indices():
    assert listed(read_by(Counted())) == [
        ([7.0, 1.0], [7, 1]),
        ([5.0, 3.0], [5, 3]),
        ([9.0], [9]),
    ]


@pytest.mark.parametrize(("room", "reads"), [(10, 5), (5, 5), (2, 5 + 3), (0, 10)])
def test_images_are_read_once_as_far_as_memory_allows(room, reads):
    read = Counted()
    batches = read_by(read, room * IMAGE_BYTES)
    assert listed(batches) == listed(batches)
    assert read.reads == reads


def test_parts_share_what_was_read():
    read = Counted()
    batches = read_by(read)
    listed(batches)
    for part in (*batches.hold_back(2), batches.mixed(3), batches.every_nth(2)):
        listed(part)
    assert read.reads == 5


def test_gradients_flow_through_batches_first_read_where_none_did():
    batches = read_by(Counted())
    with torch.inference_mode():
        listed(batches)
    assert not any(images.is_inference() for images, _ in batches)


def test_labels_are_known_without_reading_images():
    read = Counted()
    assert labels_of(read_by(read)).tolist() == [7, 1, 5, 3, 9]
    assert read.reads == 0
    assert labels_of([(torch.zeros(2, 1), torch.tensor([3, 4]))]).tolist() == [3, 4]


def test_other_labels_leave_the_images_and_the_given_batches_alone():
    batches = read_by(Counted())
    other = batches.with_labels(torch.tensor([4, 3, 2, 1, 0]))
    assert numbers(other) == numbers(batches)
    assert other.labels.tolist() == [4, 3, 2, 1, 0]
    assert other.take(torch.tensor([4, 0])).labels.tolist() == [0, 4]
    assert batches.labels.tolist() == [7, 1, 5, 3, 9]


@pytest.mark.parametrize("labels", [torch.arange(160) // 16, torch.arange(160) % 8])
def test_the_images_held_back_have_all_classes_in_proportion(labels):
    """In class order, as folders are, and in turns, where every eighth image is of one class."""
    for batches in every_kind(labels):
        rest, held_back = batches.hold_back(8)
        assert sorted(numbers(rest) + numbers(held_back)) == list(range(160))
        assert numbers(rest) == sorted(numbers(rest))
        assert torch.equal(rest.labels, labels[numbers(rest)])
        counts = torch.bincount(held_back.labels)
        assert held_back.images == 20
        assert len(counts) == len(labels.unique())
        assert counts.max() - counts.min() <= 1
        assert {len(y) for _, y in rest} == {7}


def test_few_images_are_in_both_parts():
    rest, held_back = single_images(given(torch.arange(7))).hold_back(8)
    assert numbers(rest) == numbers(held_back) == list(range(7))


def test_shuffled_images_come_in_equal_batches_again_and_again():
    labels = torch.arange(41) % 3
    for batches in every_kind(labels):
        shuffled = batches.regrouped(10).shuffled(torch.Generator().manual_seed(0))
        order = torch.randperm(41, generator=torch.Generator().manual_seed(0))
        for _ in range(2):
            assert [len(y) for _, y in shuffled] == [9, 8, 8, 8, 8]
            assert numbers(shuffled) == order.tolist()
            assert torch.equal(torch.cat([y for _, y in shuffled]), labels[order])


def test_mixed_batches_hold_the_classes_in_proportion():
    for batches in every_kind(torch.arange(100) // 10):
        mixed = batches.mixed(30)
        assert sorted(numbers(mixed)) == list(range(100))
        for _, found in mixed:
            counts = torch.bincount(found, minlength=10)
            assert counts.max() - counts.min() <= 1


def test_the_hardest_images_come_first():
    losses = torch.tensor([0.5, 3.0, 1.0, 3.0])
    given = in_memory(torch.rand(4, *SHAPE), torch.arange(4), 3)
    batches, fallen, falling = hardest_first(given, losses)
    assert batches.labels.tolist() == [1, 3, 2, 0]
    assert [len(y) for _, y in batches] == [3, 1]
    assert fallen.tolist() == [3.0, 3.0, 1.0, 0.5]
    assert falling


def test_images_in_memory_are_given_without_a_copy():
    inputs = torch.rand(12, *SHAPE)
    batches = in_memory(inputs, torch.zeros(12, dtype=torch.int64), 4)
    assert [x.data_ptr() for x, _ in batches] == [inputs[i].data_ptr() for i in (0, 4, 8)]


def test_batches_that_can_only_be_iterated_over_take_one_pass_in_order():
    passes = Passes(given(torch.arange(70)))
    batches = single_images(passes)
    before = passes.passes
    assert numbers(batches) == list(range(70))
    assert numbers(batches.every_nth(3)) == list(range(0, 70, 3))
    assert passes.passes <= before + 2
    assert not batches.random_access
    assert single_images(given(torch.arange(70))).random_access


@pytest.mark.parametrize("kind", [list, Passes])
def test_whole_batches_are_never_taken_apart(kind):
    made = given(torch.arange(70))
    batches = whole_batches(kind(made))
    assert [x is y for x, y in zip(batches, made, strict=True)] == [True] * 10
    rest, held_back = batches.hold_back(4)
    assert [batch is made[i] for batch, i in zip(held_back, (3, 7), strict=True)] == [True] * 2
    assert (rest.images, held_back.images) == (56, 14)
    assert [len(y) for _, y in batches.every_nth(5)] == [7, 7]
    generator = torch.Generator()
    for same in (batches.regrouped(3), batches.shuffled(generator), batches.mixed(3)):
        assert [len(y) for _, y in same] == [7] * 10
    assert hardest_first(batches, torch.arange(70))[0] is batches
    assert batches.first_inputs() is None


def test_whole_batches_of_images_keep_their_images_together():
    batches = in_memory(torch.rand(9, *SHAPE), torch.arange(9), 2)
    rest, held_back = whole_batches(batches).hold_back(3)
    assert [y.tolist() for _, y in held_back] == [[4, 5]]
    assert [y.tolist() for _, y in rest] == [[0, 1], [2, 3], [6, 7], [8]]


def test_the_memory_format_is_kept():
    inputs = torch.randn(6, 3, 4, 4).contiguous(memory_format=torch.channels_last)
    labels = torch.zeros(6, dtype=torch.int64)
    for batches in (single_images([(inputs, labels)]), in_memory(inputs, labels, 6)):
        for batch, _ in batches.take(torch.tensor([5, 0, 2])):
            assert batch.is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize("make", [single_images, whole_batches])
def test_no_images_are_refused(make):
    with pytest.raises(InputError, match="is empty; give images"):
        make([])
