"""One layer's weights by least squares, then again with aims moved to where that is as good."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from slimnet.recover.columns import ROWS_PER_COLUMN
from slimnet.recover.moments import ridge_for
from slimnet.recover.slack import Slack

RELAXATIONS = 4
MOST_ELEMENTS = 2**25


class LeastSquares:
    """Finds W with W x near to what is wanted of it, with a ridge that holds W where it is.

    With slack, it is solved a few times more for the aims of ``Slack.relaxed``, each time nearer to
    what makes no difference. For that, copies of all that was added stay in memory, as columns
    where these fit; past 2**25 numbers (128 MiB) slack is given up.

    Args:
        matrix: W as it is, (groups, outputs, columns) float64.
        slack: of all outputs, those of the first group first.
        images: of how many there will be columns.
    """

    def __init__(self, matrix: Tensor, slack: Slack | None = None, images: int = 0) -> None:
        self._matrix, self._slack, self._images = matrix, slack, images
        self._moment = matrix.new_zeros(len(matrix), matrix.shape[2], matrix.shape[2])
        self._cross = torch.zeros_like(matrix)
        self._added: list[tuple[Tensor, Callable[[Tensor], Tensor], Tensor]] = []
        self._elements = 0

    def add(self, read: Tensor, unfolded: Callable[[Tensor], Tensor], wanted: Tensor) -> None:
        """Take in what a layer reads, of which ``unfolded`` makes x, (groups, columns, rows).

        ``wanted`` is (groups, outputs, rows).
        """
        columns = unfolded(read)
        self._moment += columns @ columns.transpose(1, 2)
        self._cross += wanted @ columns.transpose(1, 2)
        if self._slack is None:
            return
        # columns save unfolding again, but of a large kernel what was read is much smaller
        if columns.numel() <= read.numel() or self._columns_fit():
            read, unfolded = columns, _as_it_is
        self._elements += read.numel() + wanted.numel()
        if self._elements > MOST_ELEMENTS:
            self._slack = None
            self._added.clear()
            return
        # a copy: the network may write something else there, or it may be a part of much more
        self._added.append((read.clone(), unfolded, wanted))

    def _columns_fit(self) -> bool:
        """Tell whether there is room for as many rows as ``Positions`` takes of a layer."""
        groups, outputs, columns = self._matrix.shape
        rows = ROWS_PER_COLUMN * columns + self._images
        return groups * (outputs + columns) * rows <= MOST_ELEMENTS

    def solve(self) -> Tensor:
        """Return W, (groups, outputs, columns) float64; this is of no use afterwards."""
        ridge = ridge_for(self._moment)[:, None]
        # in place, because a large layer's moments take hundreds of megabytes
        self._moment.diagonal(dim1=1, dim2=2).add_(ridge)
        factors = torch.linalg.lu_factor(self._moment)
        del self._moment
        held = ridge[:, None] * self._matrix
        solved: Tensor = torch.linalg.lu_solve(*factors, self._cross + held, left=False)
        for _ in range(RELAXATIONS if self._slack is not None else 0):
            solved = torch.linalg.lu_solve(*factors, self._cross_of_aims(solved) + held, left=False)
        return solved

    def _cross_of_aims(self, solved: Tensor) -> Tensor:
        """Return the sum of aims times x, the aims nearest to what these weights put out."""
        assert self._slack is not None
        cross = torch.zeros_like(self._cross)
        for read, unfolded, wanted in self._added:
            columns = unfolded(read)
            aims = self._slack.relaxed(wanted, solved.to(columns.dtype) @ columns)
            cross += aims @ columns.transpose(1, 2)
        return cross


def _as_it_is(columns: Tensor) -> Tensor:
    return columns
