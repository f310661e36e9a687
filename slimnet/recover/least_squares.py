"""One layer's weights by ridge regression, from what the layer reads and should put out."""

from __future__ import annotations

import torch
from torch import Tensor

from slimnet.recover.moments import ridge_for


class LeastSquares:
    """Finds W with W x near to the targets, and a ridge that holds W near to what it is.

    Args:
        matrix: W as it is, (groups, outputs, columns) float64.
    """

    def __init__(self, matrix: Tensor) -> None:
        self._matrix = matrix
        self._gram = matrix.new_zeros(len(matrix), matrix.shape[2], matrix.shape[2])
        self._cross = torch.zeros_like(matrix)

    def add(self, columns: Tensor, targets: Tensor) -> None:
        """Add rows: x is (groups, columns, rows), the targets are (groups, outputs, rows)."""
        self._gram += columns @ columns.transpose(1, 2)
        self._cross += targets @ columns.transpose(1, 2)

    def solve(self) -> Tensor:
        """Return W, (groups, outputs, columns) float64."""
        ridge = ridge_for(self._gram)[:, None]
        gram = self._gram + torch.diag_embed(ridge.expand(-1, self._gram.shape[1]))
        solved: Tensor = torch.linalg.solve(
            gram, self._cross + ridge[:, None] * self._matrix, left=False
        )
        return solved
