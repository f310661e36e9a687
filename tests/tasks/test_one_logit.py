"""Networks of one output, trained with binary cross-entropy, are classifiers of two classes."""

import pytest
import torch
from torch import nn
from torch.nn import functional

from slimnet.data import class_scores
from slimnet.records import Split
from slimnet.tasks import CLASSIFICATION, measure_quality
from slimnet.tasks.classes import balanced_drop, evaluate_balanced_drop
from slimnet.tasks.classification import balanced_accuracy
from slimnet.tasks.drop import evaluate_paired_drop, paired_drop

torch.manual_seed(0)
INPUTS, LABELS = torch.randn(50, 6), torch.arange(50) % 2
COLUMN = nn.Linear(6, 1).eval()
FLAT = nn.Sequential(COLUMN, nn.Flatten(0)).eval()
BATCH = (INPUTS, LABELS)


@pytest.mark.parametrize("network", [COLUMN, FLAT])
def test_loss_and_score_are_those_of_binary_cross_entropy(network):
    logits = COLUMN(INPUTS)[:, 0]
    losses, classes = CLASSIFICATION.evaluate(network, BATCH)
    expected = functional.binary_cross_entropy_with_logits(logits, LABELS.float(), reduction="none")
    assert torch.allclose(losses, expected, atol=1e-6)
    assert torch.equal(classes, (logits > 0).long())
    assert torch.allclose(CLASSIFICATION.loss(network, BATCH), expected.mean())
    right = 100 * float(((logits > 0) == (LABELS == 1)).float().mean())
    assert CLASSIFICATION.score(network, [BATCH]) == pytest.approx(right)


def test_a_logit_of_zero_is_class_0():
    assert class_scores(torch.tensor([0.0, 1e-6, -1e-6])).argmax(1).tolist() == [0, 1, 0]


@pytest.mark.parametrize("network", [COLUMN, FLAT])
def test_the_logit_makes_all_the_difference(network):
    outputs = tuple(output.detach() for output in CLASSIFICATION.outputs(network, BATCH))
    (decisive,) = CLASSIFICATION.decisive(outputs)
    assert torch.allclose(decisive[:, 1] - decisive[:, 0], outputs[0].flatten())
    twice = tuple(2 * output for output in outputs)
    assert CLASSIFICATION.distance(outputs, outputs, 2.0) == pytest.approx(0, abs=1e-6)
    probability = torch.sigmoid(outputs[0].double() / 2).flatten()
    other = torch.sigmoid(outputs[0].double()).flatten()
    divergence = probability * (probability / other).log()
    divergence += (1 - probability) * ((1 - probability) / (1 - other)).log()
    found = CLASSIFICATION.distance(twice, outputs, 2.0)
    assert float(found) == pytest.approx(4 * float(divergence.mean()), rel=1e-4)


@pytest.mark.parametrize("network", [COLUMN, FLAT])
def test_every_measure_takes_class_1_where_the_logit_is_above_0(network):
    right = (COLUMN(INPUTS)[:, 0] > 0) == (LABELS == 1)
    split = Split("selection", 50, [BATCH])
    found = measure_quality(network, split)
    assert torch.equal(found.correct, right)
    both = [float(right[label == LABELS].float().mean()) for label in (0, 1)]
    assert balanced_accuracy(network, [BATCH]) == pytest.approx(50 * sum(both))
    for whole, evaluate in (
        (paired_drop, evaluate_paired_drop), (balanced_drop, evaluate_balanced_drop)
    ):  # fmt: skip
        opposite = nn.Linear(6, 1)
        opposite.load_state_dict({name: -value for name, value in COLUMN.state_dict().items()})
        drop = evaluate(found, opposite, split, 0.5, 100.0)
        assert drop.points == pytest.approx(
            whole(found, measure_quality(opposite, split), 0.5).points
        )
        share = float(right.float().mean()) if whole is paired_drop else sum(both) / 2
        assert drop.points == pytest.approx(100 * (2 * share - 1), abs=1e-4)
