"""Batches repeat, and are kept in memory where they are small."""

import torch

from slimnet.load.batches import ImageBatches, labels_of
from slimnet.load.preprocess import build_preprocessor
from slimnet.load.source import Source
from slimnet.settings import Settings

SHAPE = (1, 2, 2)


class Counted:
    def __init__(self):
        self.reads = 0

    def __call__(self, index):
        self.reads += 1
        return torch.full(SHAPE, float(index))


def made(read, keep_bytes=10_000):
    source = Source("s", read, torch.arange(10))
    preprocessor = build_preprocessor(Settings(), torch.zeros(SHAPE))
    indices = torch.tensor([7, 1, 5, 3, 9])
    return ImageBatches(source, indices, preprocessor, SHAPE, 2, keep_bytes)


def listed(batches):
    return [(images.flatten(1)[:, 0].tolist(), labels.tolist()) for images, labels in batches]


def test_batches_in_the_order_of_the_indices():
    assert listed(made(Counted())) == [
        ([7.0, 1.0], [7, 1]),
        ([5.0, 3.0], [5, 3]),
        ([9.0], [9]),
    ]


def test_small_split_is_read_once_and_large_one_each_time():
    small, large = Counted(), Counted()
    for batches in (made(small), made(large, keep_bytes=5 * 4 * 4)):
        assert listed(batches) == listed(batches)
    assert small.reads == 5
    assert large.reads == 10


def test_gradients_flow_through_batches_first_read_where_none_did():
    batches = made(Counted())
    with torch.inference_mode():
        listed(batches)
    assert not any(images.is_inference() for images, _ in batches)


def test_half_a_pass_keeps_nothing():
    batches = made(Counted())
    next(iter(batches))
    assert len(listed(batches)) == 3


def test_labels_need_no_decoding():
    read = Counted()
    assert labels_of(made(read)).tolist() == [7, 1, 5, 3, 9]
    assert read.reads == 0
    assert labels_of([(torch.zeros(2, 1), torch.tensor([3, 4]))]).tolist() == [3, 4]
