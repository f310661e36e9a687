"""Accuracy, loss, the paired drop and its bounds, and the guard against chance."""

import math

import pytest
import torch
from torch import nn

from slimnet.errors import InputError
from slimnet.records.data import Split
from slimnet.tasks.classification import mean_loss
from slimnet.tasks.drop import Quality, measure_quality, paired_drop, require_better_than_chance


def quality(correct):
    correct = torch.tensor(correct, dtype=torch.bool)
    return Quality(correct, torch.zeros(len(correct), dtype=torch.int64), 0.0)


def paired(lost, won, both, neither):
    original = [1] * lost + [0] * won + [1] * both + [0] * neither
    slim = [0] * lost + [1] * won + [1] * both + [0] * neither
    return quality(original), quality(slim)


def test_plain_estimate_at_one_half():
    drop = paired_drop(*paired(12, 4, 150, 34), 0.5)
    assert drop.points == pytest.approx(100 * 8 / 200)
    assert drop.upper_points == drop.lower_points == drop.points
    assert drop.original_percent == pytest.approx(81)
    assert drop.slim_percent == pytest.approx(77)


def score_statistic(lost, won, images, difference):
    """Tango's statistic with the restricted likelihood maximised by brute force."""
    best, best_q = -math.inf, 0.0
    for step in range(1, 20000):
        q = step / 20000 * (1 - difference) / 2
        both = 1 - 2 * q - difference
        likelihood = (
            lost * math.log(q + difference)
            + won * math.log(q)
            + (images - lost - won) * math.log(both)
            if both > 0
            else -math.inf
        )
        if likelihood > best:
            best, best_q = likelihood, q
    variance = images * (2 * best_q + difference - difference**2)
    return (lost - won - images * difference) / math.sqrt(variance)


@pytest.mark.parametrize(("lost", "won", "both", "neither"), [(9, 3, 20, 12), (30, 11, 300, 59)])
def test_upper_bound_is_where_the_score_test_just_accepts(lost, won, both, neither):
    images = lost + won + both + neither
    drop = paired_drop(*paired(lost, won, both, neither), 0.95)
    assert drop.lower_points < drop.points < drop.upper_points
    assert score_statistic(lost, won, images, drop.upper_points / 100) == pytest.approx(
        -1.6449, abs=2e-3
    )
    # seen from the other side, the lower bound is the upper bound of the opposite drop
    opposite = paired_drop(*paired(won, lost, both, neither), 0.95)
    assert drop.lower_points == pytest.approx(-opposite.upper_points)


def test_no_disagreement_is_no_certainty():
    # with no discordant pair, Tango's limit is z² / (n + z²)
    drop = paired_drop(*paired(0, 0, 380, 43), 0.95)
    assert drop.points == 0
    assert drop.upper_points == pytest.approx(100 * 2.7055 / (423 + 2.7055), rel=1e-3)


def test_bound_covers_the_true_drop_about_as_often_as_it_says():
    generator = torch.Generator().manual_seed(0)
    shares = torch.tensor([0.05, 0.02, 0.80, 0.13])  # true drop: 3 points
    covered = 0
    for _ in range(300):
        cells = torch.multinomial(shares, 300, replacement=True, generator=generator)
        counts = torch.bincount(cells, minlength=4).tolist()
        covered += paired_drop(*paired(*counts), 0.95).upper_points >= 3
    assert 0.91 <= covered / 300 <= 0.99


def test_quality_and_loss_over_uneven_batches():
    torch.manual_seed(0)
    model, inputs, labels = nn.Linear(5, 3), torch.randn(7, 5), torch.arange(7) % 3
    split = Split("selection", 7, [(inputs[:4], labels[:4]), (inputs[4:], labels[4:])])
    measured = measure_quality(model, split)
    logits = model(inputs).detach()
    assert measured.correct.tolist() == (logits.argmax(1) == labels).tolist()
    assert measured.loss == pytest.approx(float(nn.functional.cross_entropy(logits, labels)))
    assert mean_loss(model, split.batches) == pytest.approx(measured.loss)


def test_a_loss_that_is_no_number_is_refused():
    model = nn.Linear(5, 3)
    split = Split("selection", 2, [(torch.full((2, 5), torch.inf), torch.tensor([0, 1]))])
    with pytest.raises(InputError, match="loss on the selection split is nan"):
        measure_quality(model, split)


@pytest.mark.parametrize("kind", ["random", "constant", "constant on a rare-class set"])
def test_chance_is_refused(kind):
    generator = torch.Generator().manual_seed(3)
    labels = torch.arange(200) % 10
    predictions = torch.randint(10, (200,), generator=generator)
    if kind.startswith("constant"):
        predictions = torch.zeros(200, dtype=torch.int64)
    if kind.endswith("set"):
        labels = (torch.arange(200) % 20 == 0).long()
    split = Split("selection", 200, [(torch.zeros(200, 1), labels)])
    with pytest.raises(InputError, match="at chance"):
        require_better_than_chance(Quality(predictions == labels, predictions, 1.0), split)


def test_a_network_that_knows_a_rare_class_is_not_at_chance():
    labels = (torch.arange(200) % 20 == 0).long()
    predictions = labels.clone()
    predictions[:20] = 0
    split = Split("selection", 200, [(torch.zeros(200, 1), labels)])
    require_better_than_chance(Quality(predictions == labels, predictions, 1.0), split)
