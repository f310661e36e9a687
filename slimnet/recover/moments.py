"""Second moments of what consumers read, gathered once on calibration images.

For every consumer H = E[x xᵀ] of its unfolded inputs x, with a constant 1 at the end where the
layer has a bias to repair. What is kept is (H + ridge)⁻¹, because removing inputs needs only that.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from slimnet.groups import Group, Member
from slimnet.measure import CLASSIFICATION, Task
from slimnet.records import Batches
from slimnet.recover.columns import (
    Positions,
    add_constant,
    image_slices,
    kernel_size,
    unfold,
)
from slimnet.recover.watching import watching

RIDGE = 1e-2
LEAST_DIAGONAL = 1e-12
MOST_COLUMNS = 6000
LARGE_COLUMNS = 2048
PENDING_ELEMENTS = 2**20


@dataclass(frozen=True)
class Moments:
    """(H + ridge)⁻¹ of one consumer, (convolution groups, columns, columns) float64, or float32.

    A column is one input channel at one kernel position, channels outermost; the last one is the
    constant where ``bias`` says which parameter or buffer takes it. ``kernel`` is how many
    columns one input channel has.
    """

    inverse: Tensor
    kernel: int
    bias: str | None

    def columns(self, channels: Tensor) -> Tensor:
        """Return the columns (entries,) of these input channels, counted within one group."""
        return (channels[:, None] * self.kernel + torch.arange(self.kernel)).flatten()


def gather_moments(
    model: nn.Module,
    groups: Iterable[Group],
    batches: Batches,
    images: int | None = None,
    task: Task = CLASSIFICATION,
) -> dict[str, Moments]:
    """Run the model over the batches and return the moments of every consumer by module name.

    The model is not changed. Consumers that cannot be repaired (transposed and 1-d or 3-d
    convolutions, depthwise ones, more than 6,000 columns) are left out. With ``images``, how many
    the batches hold, only as many positions of each are taken as a layer has use for.
    """
    consumers = {m.module: m for g in groups for m in g.members if m.direction == "in"}
    consumers = {k: m for k, m in consumers.items() if _repairable(model.get_submodule(k))}
    sums = {name: _Sum() for name in consumers}
    constants = {name: _bias_of(model, member) for name, member in consumers.items()}

    positions = {name: Positions(images) for name in consumers}

    def watch(name: str, module: nn.Module, inputs: Tensor, output: Tensor) -> None:
        for part in image_slices(module, inputs):
            chosen = positions[name].choose(module, output)
            columns = unfold(module, inputs[part], chosen)
            columns = columns if constants[name] is None else add_constant(columns)
            sums[name].add(columns)

    with torch.no_grad(), watching(model, consumers, watch):
        for batch in batches:
            task.outputs(model, batch)
    return {
        name: Moments(
            # taken out of the sums, so that not all of both are in memory at the same time
            inverse=_inverse(sums.pop(name).mean()),
            kernel=kernel_size(model.get_submodule(name)),
            bias=constants[name],
        )
        for name in list(sums)
        if sums[name].rows
    }


class _Sum:
    """The sum of x xᵀ over the rows that come part by part, (groups, columns, columns) float64.

    One product of many rows takes much less time than many of few, each of which would go over all
    of the sum.
    """

    def __init__(self) -> None:
        self._sum: Tensor | None = None
        self._pending: list[Tensor] = []
        self.rows = 0

    def add(self, columns: Tensor) -> None:
        """Take in (groups, columns, rows)."""
        self.rows += columns.shape[2]
        waiting = sum(part.numel() for part in self._pending)
        many = waiting + columns.numel() >= PENDING_ELEMENTS
        # what waits may be a view of a feature map that the network goes on to overwrite
        self._pending.append(columns if many else columns.clone())
        if many:
            self._multiply()

    def mean(self) -> Tensor:
        """Return the sum divided by the number of rows; it is of no use any more."""
        if self._pending:
            self._multiply()
        assert self._sum is not None
        return self._sum.div_(self.rows)

    def _multiply(self) -> None:
        # a single part may be large, and need not be in memory twice
        columns = torch.cat(self._pending, 2) if len(self._pending) > 1 else self._pending[0]
        self._pending.clear()
        product = columns @ columns.transpose(1, 2)
        if self._sum is None:
            self._sum = product.double()
        else:
            self._sum += product


def _repairable(module: nn.Module) -> bool:
    if isinstance(module, nn.Linear):
        return module.in_features < MOST_COLUMNS
    if not isinstance(module, nn.Conv2d) or module.groups == module.in_channels > 1:
        return False
    return module.in_channels // module.groups * kernel_size(module) < MOST_COLUMNS


def _bias_of(model: nn.Module, member: Member) -> str | None:
    """Return the name of what takes the repaired bias: the layer's, or its norm's running mean."""
    if getattr(model.get_submodule(member.module), "bias", None) is not None:
        return f"{member.module}.bias"
    if member.norm and getattr(model.get_submodule(member.norm), "running_mean", None) is not None:
        return f"{member.norm}.running_mean"
    return None


def _inverse(moment: Tensor) -> Tensor:
    """Return (H + ridge)⁻¹; the ridge, a share of the mean diagonal, keeps dead inputs harmless.

    The moment is changed. A large inverse is kept in float32, to hold it in memory.
    """
    moment.diagonal(dim1=1, dim2=2).add_(ridge_for(moment)[:, None])
    inverse: Tensor = torch.linalg.inv(moment)
    return inverse.float() if inverse.shape[1] > LARGE_COLUMNS else inverse


def ridge_for(moment: Tensor) -> Tensor:
    """Return the ridge of each group, (groups,): 1 % of the mean diagonal, and never nothing."""
    return RIDGE * moment.diagonal(dim1=1, dim2=2).mean(1).clamp_min(LEAST_DIAGONAL)


def shrink_moments(
    moments: Mapping[str, Moments], removed: Mapping[str, Tensor]
) -> dict[str, Moments]:
    """Return the moments after input channels are gone: (H_RR)⁻¹ by the Schur complement.

    ``removed`` maps a consumer to its removed input channels, counted within one group.
    """
    after = dict(moments)
    for name, channels in removed.items():
        if name not in moments:
            continue
        old = moments[name]
        gone = old.columns(channels)
        kept = torch.ones(old.inverse.shape[1], dtype=torch.bool)
        kept[gone] = False
        across = old.inverse[:, gone][:, :, kept].double()
        inner = old.inverse[:, gone][:, :, gone].double()
        correction = across.transpose(1, 2) @ torch.linalg.solve(inner, across)
        inverse = old.inverse[:, kept][:, :, kept].sub_(correction.to(old.inverse.dtype))
        after[name] = Moments(inverse, old.kernel, old.bias)
    return after
