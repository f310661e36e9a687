"""One layer as a least-squares problem, against the obvious computation."""

from __future__ import annotations

import pytest
import torch

from slimnet.recover import least_squares
from slimnet.recover.least_squares import RELAXATIONS, LeastSquares
from slimnet.recover.moments import RIDGE
from slimnet.recover.slack import Slack

OUTPUTS, COLUMNS, ROWS = 3, 5, 40
RELU = Slack(torch.zeros(2 * OUTPUTS, 1), torch.full((2 * OUTPUTS, 1), torch.inf))


@pytest.fixture
def problem():
    """Weights of two groups, and two parts of what they read and what is wanted of them."""
    torch.manual_seed(0)
    matrix = torch.randn(2, OUTPUTS, COLUMNS, dtype=torch.float64)
    reads = torch.randn(2, 2, COLUMNS, ROWS, dtype=torch.float64)
    wanted = torch.randn(2, 2, OUTPUTS, ROWS, dtype=torch.float64)
    return matrix, reads, wanted


def as_it_is(read):
    return read


def unfolded_from_half(read):
    """What is read is smaller than the columns that it becomes."""
    return torch.cat([read, read.flip(1)], 1)


def solved(matrix, reads, wanted, slack, unfolded=as_it_is):
    fit = LeastSquares(matrix, slack)
    for read, outputs in zip(reads, wanted, strict=True):
        fit.add(read, unfolded, outputs)
    return fit.solve()


def slowly(matrix, x, aims):
    """One row of weights after the other, the ridge as rows of its own."""
    result = torch.zeros_like(matrix)
    for group in range(len(matrix)):
        ridge = (RIDGE * x[group].square().sum(1).mean()).sqrt()
        left = torch.cat([x[group].T, ridge * torch.eye(x.shape[1], dtype=x.dtype)])
        for output in range(matrix.shape[1]):
            right = torch.cat([aims[group, output], ridge * matrix[group, output]])
            result[group, output] = torch.linalg.lstsq(left, right[:, None]).solution[:, 0]
    return result


@pytest.mark.parametrize("unfolded", [as_it_is, unfolded_from_half])
@pytest.mark.parametrize("slack", [None, RELU])
def test_it_is_the_slow_obvious_solution(problem, slack, unfolded):
    matrix, reads, wanted = problem
    x = torch.cat([unfolded(read) for read in reads], 2)
    if unfolded is unfolded_from_half:
        matrix = torch.randn(2, OUTPUTS, 2 * COLUMNS, dtype=torch.float64)
    aims = all_wanted = torch.cat(list(wanted), 2)
    expected = slowly(matrix, x, aims)
    for _ in range(RELAXATIONS if slack else 0):
        reached = expected @ x
        aims = torch.where(all_wanted <= 0, reached.clamp(max=0), all_wanted)
        expected = slowly(matrix, x, aims)
    assert torch.allclose(solved(matrix, reads, wanted, slack, unfolded), expected)


def test_slack_brings_what_a_relu_lets_through_nearer(problem):
    matrix, reads, _ = problem
    wanted = torch.randn_like(matrix) @ reads
    wanted = torch.where(wanted < 0, 3 * wanted, wanted)

    def distance(weights):
        return float((wanted.clamp(min=0) - (weights @ reads).clamp(min=0)).square().sum())

    plain, relaxed = (solved(matrix, reads, wanted, slack) for slack in (None, RELU))
    assert distance(relaxed) < 0.5 * distance(plain)


def test_what_memory_has_no_room_for_is_solved_without_slack(problem, monkeypatch):
    plain = solved(*problem, None)
    elements = problem[1].numel() + problem[2].numel()
    monkeypatch.setattr(least_squares, "MOST_ELEMENTS", elements - 1)
    assert torch.equal(solved(*problem, RELU), plain)
    monkeypatch.setattr(least_squares, "MOST_ELEMENTS", elements)
    assert not torch.equal(solved(*problem, RELU), plain)


@pytest.mark.parametrize(
    ("unfolded", "room_for_columns", "kept"),
    [
        (as_it_is, False, COLUMNS),
        (as_it_is, True, COLUMNS),
        (unfolded_from_half, False, COLUMNS),
        (unfolded_from_half, True, 2 * COLUMNS),
    ],
)
def test_what_was_added_may_be_overwritten_and_is_kept_as_columns_where_these_fit(
    problem, monkeypatch, unfolded, room_for_columns, kept
):
    _, reads, wanted = problem
    columns = unfolded(reads[0]).shape[1]
    matrix = torch.randn(2, OUTPUTS, columns, dtype=torch.float64)
    expected = solved(matrix, reads, wanted, RELU, unfolded)
    # 64 rows for each column are reckoned with, and one more of each image
    most = 2 * (OUTPUTS + columns) * (columns * 64 + 7)
    monkeypatch.setattr(least_squares, "MOST_ELEMENTS", most if room_for_columns else most - 1)
    fit, buffer = LeastSquares(matrix, RELU, images=7), torch.empty(2, 2 * COLUMNS, ROWS).double()
    for read, outputs in zip(reads, wanted, strict=True):
        fit.add(buffer[:, :COLUMNS].copy_(read), unfolded, outputs)
    held = [read.untyped_storage().nbytes() for read, _, _ in fit._added]
    assert held == [8 * 2 * kept * ROWS] * 2
    assert torch.equal(fit.solve(), expected)
