"""One layer as a ridge regression, against the obvious computation."""

from __future__ import annotations

import torch

from slimnet.recover.least_squares import LeastSquares
from slimnet.recover.moments import RIDGE

OUTPUTS, COLUMNS, ROWS = 3, 5, 40


def slowly(matrix, x, targets):
    """One row of weights after the other, the ridge as rows of its own."""
    result = torch.zeros_like(matrix)
    for group in range(len(matrix)):
        ridge = (RIDGE * x[group].square().sum(1).mean()).sqrt()
        left = torch.cat([x[group].T, ridge * torch.eye(x.shape[1], dtype=x.dtype)])
        for output in range(matrix.shape[1]):
            right = torch.cat([targets[group, output], ridge * matrix[group, output]])
            result[group, output] = torch.linalg.lstsq(left, right[:, None]).solution[:, 0]
    return result


def test_it_is_the_slow_obvious_solution():
    torch.manual_seed(0)
    matrix = torch.randn(2, OUTPUTS, COLUMNS, dtype=torch.float64)
    parts = torch.randn(2, 2, COLUMNS, ROWS, dtype=torch.float64)
    targets = torch.randn(2, 2, OUTPUTS, ROWS, dtype=torch.float64)
    fit = LeastSquares(matrix)
    for columns, wanted in zip(parts, targets, strict=True):
        fit.add(columns, wanted)
    expected = slowly(matrix, torch.cat(list(parts), 2), torch.cat(list(targets), 2))
    assert torch.allclose(fit.solve(), expected)
