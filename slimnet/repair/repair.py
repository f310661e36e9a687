"""Closed-form repair: the consumers' remaining weights make up for the inputs that go.

The Gram matrix of a consumer is H = E[x xᵀ] of its unfolded inputs x, with a constant 1 at the end
where the layer has a bias to repair. Only (H + ridge)⁻¹ is needed to remove inputs, and kept.
W ← W − W_c (H⁻¹_cc)⁻¹ H⁻¹_c, the block step of the optimal brain surgeon (Hassibi and Stork 1993),
is the least-squares solution for the layer's own output on calibration images.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from slimnet.execution import get_state, watching
from slimnet.groups import Group
from slimnet.records import Batches, Plan
from slimnet.repair.columns import (
    Positions,
    add_constant,
    image_slices,
    kernel_size,
    multiplies,
    unfold,
)
from slimnet.tasks import CLASSIFICATION, Task

RIDGE = 1e-2
"""Share of the mean diagonal of H that is added to its diagonal. A guess."""

MIN_DIAGONAL = 1e-12
"""The ridge of a layer whose inputs are all zero; any small number keeps H invertible."""

MAX_COLUMNS = 6000
"""A layer with more inputs is not repaired: its inverse would take 288 MB, and minutes. A guess."""

LARGE_COLUMNS = 2048
"""An inverse with more columns (32 MB) is kept in float32. A test holds that it repairs as well."""

PENDING_ELEMENTS = 2**20
"""Rows wait until there are 4 MiB of them, so that one large product replaces many small ones."""


@dataclass(frozen=True)
class InverseGram:
    """(H + ridge)⁻¹ of one consumer, (convolution groups, columns, columns) float64, or float32.

    A column is one input channel at one kernel position, channels outermost. The last one is the
    constant, if the parameter or buffer named by ``bias`` can take it; ``bias`` is None otherwise.
    ``kernel`` is how many columns one input channel has.
    """

    inverse: Tensor
    kernel: int
    bias: str | None

    def columns(self, channels: Tensor) -> Tensor:
        """Return the columns (entries,) of these input channels, counted within one group."""
        return (channels[:, None] * self.kernel + torch.arange(self.kernel)).flatten()


def gather_inverse_grams(
    model: nn.Module,
    groups: Iterable[Group],
    batches: Batches,
    images: int = 1,
    task: Task = CLASSIFICATION,
) -> dict[str, InverseGram]:
    """Run the model over the batches and return the inverse of every consumer by module name.

    The model is not changed. Consumers that cannot be repaired (transposed and 1-d or 3-d
    convolutions, depthwise ones, 6,000 columns or more) are left out. ``images`` is how many the
    batches hold: of each, only as many positions are taken as a layer has use for.
    """
    consumers = {m.module: m for g in groups for m in g.members if m.direction == "in"}
    consumers = {k: m for k, m in consumers.items() if is_repairable(model.get_submodule(k))}
    grams = {name: _Gram() for name in consumers}
    biases = {name: bias_of(model, name, member.norm) for name, member in consumers.items()}
    positions = {name: Positions(images) for name in consumers}

    def after(name: str, module: nn.Module, inputs: Tensor, output: Tensor) -> None:
        for part in image_slices(module, inputs):
            chosen = positions[name].choose(module, output)
            columns = unfold(module, inputs[part], chosen)
            columns = columns if biases[name] is None else add_constant(columns)
            grams[name].add(columns)

    with torch.no_grad(), watching(model, consumers, after):
        for batch in batches:
            task.outputs(model, batch)
    return {
        name: InverseGram(
            # popped, so that not all Gram matrices and all inverses are in memory at once
            inverse=_inverse(grams.pop(name).mean()),
            kernel=kernel_size(model.get_submodule(name)),
            bias=biases[name],
        )
        for name in list(grams)
        if grams[name].rows
    }


class _Gram:
    """The sum of x xᵀ over rows that come part by part, (groups, columns, columns) float64."""

    def __init__(self) -> None:
        self._sum: Tensor | None = None
        self._pending: list[Tensor] = []
        self.rows = 0

    def add(self, columns: Tensor) -> None:
        """Take in (groups, columns, rows)."""
        self.rows += columns.shape[2]
        waiting = sum(part.numel() for part in self._pending)
        many = waiting + columns.numel() >= PENDING_ELEMENTS
        # a copy: a part that waits may be a view of a feature map that the network overwrites
        self._pending.append(columns if many else columns.clone())
        if many:
            self._multiply()

    def mean(self) -> Tensor:
        """Change the sum to the mean over the rows, and return it."""
        if self._pending:
            self._multiply()
        assert self._sum is not None
        return self._sum.div_(self.rows)

    def _multiply(self) -> None:
        # a single part may be large: it is not copied
        columns = torch.cat(self._pending, 2) if len(self._pending) > 1 else self._pending[0]
        self._pending.clear()
        product = columns @ columns.transpose(1, 2)
        if self._sum is None:
            self._sum = product.double()
        else:
            self._sum += product


def is_repairable(module: nn.Module) -> bool:
    """Tell whether the layer is one that least squares can solve anew."""
    if isinstance(module, nn.Linear):
        return module.in_features < MAX_COLUMNS and multiplies(module)
    if not isinstance(module, nn.Conv2d) or module.groups == module.in_channels > 1:
        return False
    columns = module.in_channels // module.groups * kernel_size(module)
    return columns < MAX_COLUMNS and multiplies(module)


def bias_of(model: nn.Module, layer: str, norm: str | None) -> str | None:
    """Return the name of the tensor that can shift a layer's output, or None.

    That is its bias, or the running mean of the batch norm that alone reads the output.
    """
    if getattr(model.get_submodule(layer), "bias", None) is not None:
        return f"{layer}.bias"
    if norm and getattr(model.get_submodule(norm), "running_mean", None) is not None:
        return f"{norm}.running_mean"
    return None


def _inverse(gram: Tensor) -> Tensor:
    """Return (H + ridge)⁻¹; H is changed. The ridge keeps inputs that are always zero harmless."""
    gram.diagonal(dim1=1, dim2=2).add_(ridge_for(gram)[:, None])
    inverse: Tensor = torch.linalg.inv(gram)
    return inverse.float() if inverse.shape[1] > LARGE_COLUMNS else inverse


def ridge_for(gram: Tensor) -> Tensor:
    """Return the ridge of each convolution group, (groups,): 1 % of the mean diagonal."""
    return RIDGE * gram.diagonal(dim1=1, dim2=2).mean(1).clamp_min(MIN_DIAGONAL)


def shrink_inverse_grams(
    inverse_grams: Mapping[str, InverseGram], removed: Mapping[str, Tensor]
) -> dict[str, InverseGram]:
    """Return the inverses after input channels are gone: (H_RR)⁻¹ by the Schur complement.

    ``removed`` maps a consumer to its removed input channels, counted within one group.
    """
    after = dict(inverse_grams)
    for name, channels in removed.items():
        if name not in inverse_grams:
            continue
        old = inverse_grams[name]
        gone = old.columns(channels)
        kept = torch.ones(old.inverse.shape[1], dtype=torch.bool)
        kept[gone] = False
        across = old.inverse[:, gone][:, :, kept].double()
        inner = old.inverse[:, gone][:, :, gone].double()
        correction = across.transpose(1, 2) @ torch.linalg.solve(inner, across)
        inverse = old.inverse[:, kept][:, :, kept].sub_(correction.to(old.inverse.dtype))
        after[name] = InverseGram(inverse, old.kernel, old.bias)
    return after


def removed_inputs(model: nn.Module, plan: Plan) -> dict[str, Tensor]:
    """Return, by consumer, its input channels that the plan removes, counted within one group."""
    removed = {}
    for name, axes in plan.items():
        if "in" in axes:
            module = model.get_submodule(name)
            index = torch.tensor(axes["in"])
            if isinstance(module, nn.Conv2d) and module.groups > 1:
                index = torch.unique(index % (module.in_channels // module.groups))
            removed[name] = index
    return removed


def repaired_weights(
    model: nn.Module, plan: Plan, inverse_grams: Mapping[str, InverseGram]
) -> dict[str, Tensor]:
    """Return new values, by parameter or buffer name, for the consumers of the plan's channels.

    The model is not changed. The columns that go become zeros. Consumers without an inverse
    are left out.
    """
    values: dict[str, Tensor] = {}
    for name, channels in removed_inputs(model, plan).items():
        if name not in inverse_grams:
            continue
        known = inverse_grams[name]
        weight = model.get_parameter(f"{name}.weight")
        matrix = weight.detach().double().reshape(known.inverse.shape[0], -1, weight[0].numel())
        gone = known.columns(channels)
        change = _least_squares_change(matrix, known.inverse, gone)
        inputs = matrix.shape[2]
        repaired = matrix - change[:, :, :inputs]
        repaired[:, :, gone] = 0
        values[f"{name}.weight"] = repaired.reshape(weight.shape).to(weight.dtype)
        if known.bias:
            bias = get_state(model, known.bias)
            shift = change[:, :, inputs].flatten().to(bias.dtype)
            # a running mean is subtracted from the output where a bias is added
            values[known.bias] = bias + shift if "running_mean" in known.bias else bias - shift
    return values


def _least_squares_change(weight: Tensor, inverse: Tensor, gone: Tensor) -> Tensor:
    """Return W_c (H⁻¹_cc)⁻¹ H⁻¹_c, (groups, outputs, columns), for the columns c that go."""
    rows = inverse[:, gone].double()
    solved: Tensor = torch.linalg.solve(rows[:, :, gone], rows)
    return weight[:, :, gone] @ solved
