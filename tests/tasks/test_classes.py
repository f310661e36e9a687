"""The recall of each class, and the balanced accuracy, against slow and obvious computations."""

from functools import cache
from itertools import product
from statistics import fmean

import pytest
import torch
from scipy.stats import binom
from torch import nn

from slimnet.errors import InputError
from slimnet.options import Options
from slimnet.records import Split
from slimnet.tasks import classes
from slimnet.tasks.classes import (
    MAX_CLASSES,
    balanced_drop,
    balanced_p_value,
    class_drops,
    effective_images,
    evaluate_balanced_drop,
    largest_share,
)
from slimnet.tasks.classification import BALANCED, choose_task
from slimnet.tasks.drop import Quality, measure_quality, paired_drop, score_limit


def quality(correct, labels):
    return Quality(correct, torch.zeros(len(correct), dtype=torch.int64), 0.0, labels)


def made(images, rates=(0.9, 0.8), seed=0):
    """Return two qualities with so many ``images`` a class, right at these rates."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.cat([torch.full((n,), label) for label, n in enumerate(images)])
    labels = labels[torch.randperm(len(labels), generator=generator)]
    before, after = (torch.rand(len(labels), generator=generator) < rate for rate in rates)
    return quality(before, labels), quality(after, labels)


def test_classes_lose_what_their_own_images_lose():
    before, after = made((70, 20, 300))
    found = {one.label: one.drop for one in class_drops(before, after)}
    assert set(found) == {0, 1, 2}
    for label, drop in found.items():
        own = before.labels == label
        pair = [quality(one.correct[own], one.labels[own]) for one in (before, after)]
        wanted = paired_drop(*pair, 1 - 0.05 / 3)
        assert drop.quantity == "recall"
        assert (drop.points, drop.images) == (wanted.points, int(own.sum()))
        assert (drop.lower_points, drop.upper_points) == (wanted.lower_points, wanted.upper_points)


def test_the_surest_loss_comes_first_and_chance_does_not():
    """One image of two may be lost by chance; forty of a hundred are not."""
    labels = torch.tensor([0] * 2 + [1] * 100 + [2] * 500)
    after = torch.ones(602, dtype=torch.bool)
    after[0] = False
    after[2:42] = False
    before = quality(torch.ones_like(after), labels)
    found = class_drops(before, quality(after, labels))
    assert [one.label for one in found] == [1, 0, 2]
    assert found[0].drop.lower_points > 0
    assert found[1].drop.lower_points < 0 < found[1].drop.points == 50
    many = made((9,) * 40)
    assert len(class_drops(*many)) == MAX_CLASSES
    assert class_drops(quality(after, labels[:0]), before) == ()


def test_balanced_drop_is_the_mean_over_images_weighted_by_their_classes():
    before, after = made((70, 20, 300))
    images = [int((before.labels == label).sum()) for label in range(3)]
    total = 0.0
    for was, now, label in zip(before.correct, after.correct, before.labels, strict=True):
        total += (int(was) - int(now)) / (3 * images[label])
    drop = balanced_drop(before, after, 0.5)
    assert drop.points == pytest.approx(100 * total)
    assert drop.lower_points == drop.upper_points == pytest.approx(drop.points)
    recalls = [before.correct[before.labels == label].double().mean() for label in range(3)]
    assert drop.original_percent == pytest.approx(100 * fmean(recalls))
    assert drop.original_percent - drop.slim_percent == pytest.approx(drop.points)
    assert "approximate" in balanced_drop(before, after, 0.95).bounds


def test_of_one_class_it_is_the_plain_drop():
    before, after = made((0, 300))
    one, other = balanced_drop(before, after, 0.95), paired_drop(before, after, 0.95)
    for name in ("points", "lower_points", "upper_points", "original_percent", "slim_percent"):
        assert getattr(one, name) == pytest.approx(getattr(other, name))


@pytest.mark.parametrize("limit", [-5.0, 8.0, 12.0, 25.0])
def test_p_value_is_that_of_the_bounds(limit):
    before, after = made((70, 20, 300))
    p = balanced_p_value(before, after, limit)
    drop = balanced_drop(before, after, max(p, 1 - p))
    edge = drop.lower_points if p > 0.5 else drop.upper_points
    assert edge == pytest.approx(limit, abs=1e-3)
    assert (p > 0.5) == (drop.points > limit)


def test_a_true_drop_at_the_limit_is_seldom_taken_for_less(monkeypatch):
    """Of 40 and 960 images 8 and 2 % are lost, 5 points: the bound is below in 5 %, roughly."""
    monkeypatch.setattr(classes, "score_limit", cache(score_limit))
    labels = torch.cat([torch.zeros(40), torch.ones(960)]).long()
    before = quality(torch.ones(1000, dtype=torch.bool), labels)
    below = 0.0
    for rare, frequent in product(range(13), range(45)):
        after = before.correct.clone()
        after[:rare] = False
        after[40 : 40 + frequent] = False
        if balanced_drop(before, quality(after, labels), 0.95).upper_points < 5.0:
            below += float(binom.pmf(rare, 40, 0.08) * binom.pmf(frequent, 960, 0.02))
    assert 0.01 < below < 0.07


class Given(nn.Module):
    """Its inputs are the scores."""

    def forward(self, inputs):
        return inputs


def split_of(correct, labels, batch_size=50):
    answers = torch.where(correct, labels, (labels + 1) % 3)
    scores = nn.functional.one_hot(answers, 3).float()
    parts = zip(scores.split(batch_size), labels.split(batch_size), strict=True)
    return Split("selection", len(labels), list(parts))


@pytest.mark.parametrize("confidence", [0.5, 0.95])
@pytest.mark.parametrize("limit", [10.0, 90.0])
def test_evaluation_stops_only_where_the_limit_is_broken(limit, confidence):
    before, after = made((70, 20, 300), (0.9, 0.3))
    split = split_of(after.correct, before.labels)
    calls = []

    def call(number, run):
        calls.append(number)
        return run()

    found = evaluate_balanced_drop(before, Given(), split, confidence, limit, call)
    whole = balanced_drop(before, measure_quality(Given(), split), confidence)
    assert (found.upper_points > limit) == (whole.upper_points > limit) == (limit == 10.0)
    assert found == whole or limit == 10.0
    assert (len(calls) < len(split.batches)) == (limit == 10.0)


def test_images_that_count():
    labels = torch.tensor([0] * 10 + [2] * 90)
    assert effective_images(labels) == round(4 / (1 / 10 + 1 / 90))
    assert effective_images(torch.arange(30) % 3) == 30
    assert largest_share(labels) == pytest.approx(1 / 20)


def test_score_option_chooses_the_task():
    assert choose_task(None, Options(score="balanced-accuracy")) is BALANCED
    labels = torch.tensor([0, 0, 0, 1])
    scores = torch.tensor([[1.0, 0], [1, 0], [0, 1], [0, 1]])
    assert BALANCED.score(Given(), [(scores, labels)]) == pytest.approx(100 * (2 / 3 + 1) / 2)
    with pytest.raises(InputError, match="labels none"):
        choose_task(None, Options(score="balanced-accuracy", labels="none"))
    with pytest.raises(InputError, match="a task too"):
        choose_task(BALANCED, Options(score="balanced-accuracy"))
