"""Second moments of what consumers read, gathered once on calibration images.

For every consumer H = E[x xᵀ] of its unfolded inputs x, with a constant 1 at the end where the
layer has a bias to repair. What is kept is (H + ridge)⁻¹, because removing inputs needs only that.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from slimnet.groups import Group, Member, first_argument
from slimnet.records import Batches

RIDGE = 1e-2
LEAST_DIAGONAL = 1e-12
MOST_COLUMNS = 6000
MOST_ELEMENTS = 2**26


@dataclass(frozen=True)
class Moments:
    """(H + ridge)⁻¹ of one consumer, (convolution groups, columns, columns) float64.

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
    model: nn.Module, groups: Iterable[Group], batches: Batches
) -> dict[str, Moments]:
    """Run the model over the batches and return the moments of every consumer by module name.

    The model is not changed. Consumers that cannot be repaired (transposed and 1-d or 3-d
    convolutions, depthwise ones, more than 6,000 columns) are left out.
    """
    consumers = {m.module: m for g in groups for m in g.members if m.direction == "in"}
    consumers = {k: m for k, m in consumers.items() if _repairable(model.get_submodule(k))}
    sums: dict[str, Tensor] = {}
    rows: dict[str, int] = {}
    constants = {name: _bias_of(model, member) for name, member in consumers.items()}

    def watch(name: str, module: nn.Module, inputs: Tensor) -> None:
        for part in image_slices(module, inputs):
            columns = unfold(module, inputs[part])
            columns = columns if constants[name] is None else add_constant(columns)
            moment = (columns @ columns.transpose(1, 2)).double()
            sums[name] = sums[name] + moment if name in sums else moment
            rows[name] = rows.get(name, 0) + columns.shape[2]

    handles = [
        model.get_submodule(name).register_forward_pre_hook(
            lambda module, args, kwargs, name=name: watch(
                name, module, first_argument(args, kwargs)
            ),
            with_kwargs=True,
        )
        for name in consumers
    ]
    try:
        with torch.no_grad():
            for inputs, _ in batches:
                model(inputs)
    finally:
        for handle in handles:
            handle.remove()
    return {
        name: Moments(
            inverse=_inverse(total / rows[name]),
            kernel=_kernel(model.get_submodule(name)),
            bias=constants[name],
        )
        for name, total in sums.items()
    }


def image_slices(module: nn.Module, inputs: Tensor) -> Iterator[slice]:
    """Yield slices of images so small that their unfolded inputs fit in memory."""
    per_image = inputs[0].numel() * _kernel(module)
    images = max(1, MOST_ELEMENTS // per_image)
    for start in range(0, len(inputs), images):
        yield slice(start, start + images)


def add_constant(columns: Tensor) -> Tensor:
    """Return the columns with a constant 1 as the last one."""
    return torch.cat([columns, torch.ones_like(columns[:, :1])], 1)


def unfold(module: nn.Module, inputs: Tensor) -> Tensor:
    """Return what the layer multiplies with its weights, (groups, columns, rows)."""
    if isinstance(module, nn.Linear):
        return inputs.reshape(1, -1, inputs.shape[-1]).transpose(1, 2)
    assert isinstance(module, nn.Conv2d)
    mode = "constant" if module.padding_mode == "zeros" else module.padding_mode
    padded = functional.pad(inputs, module._reversed_padding_repeated_twice, mode=mode)
    columns = functional.unfold(
        padded, module.kernel_size, dilation=module.dilation, stride=module.stride
    )
    grouped = columns.reshape(len(inputs), module.groups, -1, columns.shape[-1])
    return torch.flatten(grouped.permute(1, 2, 0, 3), 2)


def _repairable(module: nn.Module) -> bool:
    if isinstance(module, nn.Linear):
        return module.in_features < MOST_COLUMNS
    if not isinstance(module, nn.Conv2d) or module.groups == module.in_channels > 1:
        return False
    return module.in_channels // module.groups * _kernel(module) < MOST_COLUMNS


def _kernel(module: nn.Module) -> int:
    return module.kernel_size[0] * module.kernel_size[1] if isinstance(module, nn.Conv2d) else 1


def _bias_of(model: nn.Module, member: Member) -> str | None:
    """Return the name of what takes the repaired bias: the layer's, or its norm's running mean."""
    if getattr(model.get_submodule(member.module), "bias", None) is not None:
        return f"{member.module}.bias"
    if member.norm and getattr(model.get_submodule(member.norm), "running_mean", None) is not None:
        return f"{member.norm}.running_mean"
    return None


def _inverse(moment: Tensor) -> Tensor:
    """Return (H + ridge)⁻¹; the ridge, a share of the mean diagonal, keeps dead inputs harmless."""
    identity = torch.eye(moment.shape[1], dtype=moment.dtype)
    inverse: Tensor = torch.linalg.inv(moment + ridge_for(moment)[:, None, None] * identity)
    return inverse


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
        across = old.inverse[:, gone][:, :, kept]
        inner = old.inverse[:, gone][:, :, gone]
        inverse = old.inverse[:, kept][:, :, kept] - across.transpose(1, 2) @ torch.linalg.solve(
            inner, across
        )
        after[name] = Moments(inverse, old.kernel, old.bias)
    return after
