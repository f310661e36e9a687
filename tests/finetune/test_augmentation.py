"""Augmentation: slow, obvious copies of what it does, and that it asks the original first."""

import copy

import torch
from torch import nn
from torch.nn import functional

from slimnet.data.batches import single_images, whole_batches
from slimnet.finetune.training_data import known_changes, mirror, shift


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def test_mirror_exchanges_left_and_right_of_half_of_the_images():
    images = torch.randn(200, 2, 4, 5)
    kept = images.clone()
    changed = mirror(images, generator())
    turned = [torch.equal(new, old.flip(2)) for new, old in zip(changed, images, strict=True)]
    same = [torch.equal(new, old) for new, old in zip(changed, images, strict=True)]
    assert all(a != b for a, b in zip(turned, same, strict=True))
    assert 70 < sum(turned) < 130
    assert torch.equal(images, kept)
    assert torch.equal(changed, mirror(images, generator()))
    assert not torch.equal(changed, mirror(images, generator(1)))


def test_shift_is_padding_with_the_edge_and_cropping():
    images = torch.randn(100, 2, 16, 24)
    kept = images.clone()
    changed = shift(images, generator())
    padded = functional.pad(images, (3, 3, 2, 2), mode="replicate")
    crops = set()
    for new, old in zip(changed, padded, strict=True):
        found = {(r, c) for r in range(5) for c in range(7)
                 if torch.equal(new, old[:, r : r + 16, c : c + 24])}  # fmt: skip
        assert len(found) == 1
        crops |= found
    assert {r for r, _ in crops} == set(range(5))
    assert {c for _, c in crops} == set(range(7))
    assert torch.equal(images, kept)
    assert torch.equal(changed, shift(images, generator()))


def test_tiny_images_are_not_shifted():
    images = torch.randn(3, 1, 7, 4)
    assert torch.equal(shift(images, generator()), images)


class Bright(nn.Module):
    """Says which half of the image is brighter: left and right, or top and bottom."""

    def __init__(self, dimension):
        super().__init__()
        self.dimension = dimension

    def forward(self, x):
        one, other = x.chunk(2, self.dimension)
        return torch.stack([one.mean((1, 2, 3)), other.mean((1, 2, 3))], 1)


def test_only_what_the_original_knows_is_done():
    """A mirror turns left into right, but not top into bottom; a small shift does neither."""
    images = torch.randn(64, 1, 8, 8, generator=generator()) * 0.01
    sides = torch.arange(64) % 2
    for image, side in zip(images, sides.tolist(), strict=True):
        image[:, 4 * side : 4 * side + 4] += 1
    upright = [(images[:40], sides[:40]), (images[40:], sides[40:])]
    lying = [(x.transpose(2, 3), y) for x, y in upright]
    assert set(known_changes(Bright(2), single_images(upright), 0)) == {"mirror", "shift"}
    assert set(known_changes(Bright(3), single_images(lying), 0)) == {"shift"}


def test_vectors_have_no_changes_and_the_network_stays_as_it_was(residual, images):
    vectors = [(torch.zeros(4, 3), torch.zeros(4, dtype=torch.int64))]
    assert known_changes(nn.Linear(3, 2), single_images(vectors), 0) == {}
    before, batches = copy.deepcopy(residual.state_dict()), [(images, torch.arange(6) % 4)]
    known_changes(residual, single_images(batches), 0)
    assert all(torch.equal(v, before[k]) for k, v in residual.state_dict().items())
    assert known_changes(residual, whole_batches(batches), 0) == {}
