"""The seeded division of labels."""

import pytest
import torch

from slimnet.data.splits import selection_count, stratified_split


@pytest.mark.parametrize("count", [0, 1, 10, 31, 84, 85])
def test_parts_are_disjoint_complete_and_of_the_exact_size(count):
    labels = torch.tensor([0] * 50 + [3] * 30 + [9] * 5)
    chosen, rest = stratified_split(labels, count, seed=1)
    assert len(chosen) == count
    assert sorted(chosen.tolist() + rest.tolist()) == list(range(85))


def test_every_class_is_in_proportion():
    labels = torch.tensor([0] * 60 + [1] * 30 + [2] * 10)[torch.randperm(100)]
    chosen, _ = stratified_split(labels, 50, seed=0)
    assert labels[chosen].bincount().tolist() == [30, 15, 5]


def test_846_images_halve_into_423_and_423():
    sizes = [90, 87, 80, 83, 86, 84, 85, 88, 81, 82]
    labels = torch.arange(10).repeat_interleave(torch.tensor(sizes))
    one, other = stratified_split(labels, len(labels) // 2, seed=0)
    assert (len(one), len(other)) == (423, 423)
    difference = labels[one].bincount() - labels[other].bincount()
    assert difference.abs().max() <= 1


def test_seed_decides():
    labels = torch.arange(3).repeat(20)
    one, again, other = (stratified_split(labels, 20, seed)[0] for seed in (5, 5, 6))
    assert torch.equal(one, again)
    assert not torch.equal(one, other)


def test_the_same_on_every_platform():
    chosen, _ = stratified_split(torch.arange(2).repeat(6), 6, seed=0)
    assert chosen.tolist() == [1, 4, 6, 7, 10, 11]


@pytest.mark.parametrize(
    ("held_out", "selection"),
    [(12, 6), (20, 10), (40, 10), (44, 11), (846, 212), (4000, 1000), (10_000, 1000)],
)
def test_a_quarter_of_the_images_held_out_is_for_selection(held_out, selection):
    """There are 10 at least, as far as half of the images are as many, and 1,000 at most."""
    assert selection_count(held_out) == selection
