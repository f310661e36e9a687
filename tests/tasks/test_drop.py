"""The drop that stops early: its verdict is that of all images."""

import pytest
import torch
from torch import nn

from slimnet.records.data import Split
from slimnet.tasks.drop import evaluate_paired_drop, measure_quality, paired_drop, score_limit


class Given(nn.Module):
    """Its input is already the scores; counts the images it has seen."""

    images = 0

    def forward(self, x):
        self.images += len(x)
        return x


def split_of(right: torch.Tensor) -> Split:
    """A split of two classes on which the scores are right where ``right`` is."""
    labels = torch.zeros(len(right), dtype=torch.int64)
    scores = torch.stack([right.float(), 1 - right.float()], 1)
    batches = list(zip(scores.split(10), labels.split(10), strict=True))
    return Split("selection", len(right), batches)


@pytest.mark.parametrize("confidence", [0.5, 0.95])
@pytest.mark.parametrize("share", [0.0, 0.05, 0.1, 0.3, 0.9])
def test_the_verdict_is_that_of_all_images(confidence, share):
    generator = torch.Generator().manual_seed(0)
    original = torch.rand(200, generator=generator) < 0.8
    slim = torch.where(torch.rand(200, generator=generator) < share, ~original, original)
    before = measure_quality(Given(), split_of(original))
    whole = paired_drop(before, measure_quality(Given(), split_of(slim)), confidence)
    judge = Given()
    drop = evaluate_paired_drop(before, judge, split_of(slim), confidence, limit_points=5)
    assert (drop.upper_points > 5) == (whole.upper_points > 5)
    if drop.upper_points <= 5:
        assert drop == whole
    assert drop.images == judge.images


def test_a_hopeless_network_is_seen_on_few_images_only():
    original = torch.ones(200, dtype=torch.bool)
    before = measure_quality(Given(), split_of(original))
    drop = evaluate_paired_drop(before, Given(), split_of(~original), 0.5, limit_points=5)
    assert (drop.images, drop.points) == (20, 100)


@pytest.mark.parametrize("z", [0.0, 1.645, 3.09])
def test_another_image_right_never_raises_the_bound(z):
    for lost in range(0, 20):
        for won in range(0, 20 - lost):
            assert score_limit(lost, won + 1, 40, z) <= score_limit(lost, won, 40, z) + 1e-9


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
def test_scores_that_are_no_numbers_are_wrong_answers(bad):
    split = split_of(torch.ones(10, dtype=torch.bool))
    before = measure_quality(Given(), split)
    spoilt = [(x.index_fill(0, torch.tensor([0]), bad), y) for x, y in split.batches]
    drop = evaluate_paired_drop(before, Given(), Split("selection", 10, spoilt), 0.5, 100)
    assert drop.points == pytest.approx(10 * len(spoilt))
