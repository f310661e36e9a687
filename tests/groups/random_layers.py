"""What random networks are made of: each takes and gives images (images, channels, size, size)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional


def convolution(
    channels: int, width: int, kernel: int, stride: int, dilation: int, groups: int,
    *, transposed: bool = False, exactly: bool = False,
) -> nn.Module:  # fmt: skip
    """Return a convolution; ``groups`` picks among the numbers that fit, or is the number."""
    fitting = [g for g in range(1, channels + 1) if channels % g == 0 == width % g]
    chosen = groups if exactly else fitting[groups % len(fitting)]
    if transposed:
        return nn.ConvTranspose2d(channels, width, kernel, stride, groups=chosen)
    padding = dilation * (kernel // 2)
    return nn.Conv2d(channels, width, kernel, stride, padding, dilation, chosen)


class OverChannels(nn.LayerNorm):
    """A layer norm of each pixel's channels."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


def norm(kind: str, channels: int, size: int) -> nn.Module:
    if kind.startswith("instance") and size < 2:
        return nn.Identity()  # one value has no spread
    return {
        "batch": lambda: nn.BatchNorm2d(channels),
        "plain batch": lambda: nn.BatchNorm2d(channels, affine=False),
        "group": lambda: nn.GroupNorm(2 if channels % 2 == 0 else 1, channels),
        "pairs": lambda: nn.GroupNorm(channels // 2 if channels % 2 == 0 else 1, channels),
        "each": lambda: nn.GroupNorm(channels, channels),
        "single": lambda: nn.GroupNorm(1, channels),
        "image": lambda: nn.LayerNorm([channels, size, size]),
        "channels": lambda: OverChannels(channels),
        "instance": lambda: nn.InstanceNorm2d(channels),
        "instance affine": lambda: nn.InstanceNorm2d(channels, affine=True),
        "instance running": lambda: nn.InstanceNorm2d(
            channels, affine=True, track_running_stats=True
        ),
    }[kind]()


def activation(kind: str, channels: int) -> nn.Module:
    return {
        "relu": nn.ReLU,
        "in place": lambda: nn.ReLU(inplace=True),
        "gelu": nn.GELU,
        "sigmoid": nn.Sigmoid,
        "prelu": nn.PReLU,
        "slopes": lambda: nn.PReLU(channels),
        "softmax": lambda: nn.Softmax(1),
        "hardswish": nn.Hardswish,
    }[kind]()


def pool(kind: str, size: int, largest: int) -> nn.Module:
    if kind == "up" and 2 * size > largest:
        return nn.Identity()
    return {
        "max": lambda: nn.MaxPool2d(2, ceil_mode=True),
        "avg": lambda: nn.AvgPool2d(2, ceil_mode=True),
        "pad": lambda: nn.ZeroPad2d(1) if size + 2 <= largest else nn.Identity(),
        "up": lambda: nn.Upsample(scale_factor=2),
    }[kind]()


def resized(x: Tensor, like: Tensor) -> Tensor:
    """Return ``x`` at the size of ``like``, by means over places."""
    return x if x.shape[2:] == like.shape[2:] else functional.adaptive_avg_pool2d(x, like.shape[2:])


class PadChannels(nn.Module):
    """Channels of zeros before and after."""

    def __init__(self, before: int, after: int) -> None:
        super().__init__()
        self.before, self.after = before, after

    def forward(self, x: Tensor) -> Tensor:
        return functional.pad(x, (0, 0, 0, 0, self.before, self.after))


class Scale(nn.Module):
    """A factor for each channel, small as in new networks."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.factor = nn.Parameter(1e-6 * torch.ones(channels, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        return x * self.factor


class SpaceAttention(nn.Module):
    """Every place is weighed by the mean of its channels."""

    def forward(self, x: Tensor) -> Tensor:
        return x * x.mean(1, keepdim=True).sigmoid()


class Heads(nn.Module):
    """Attention over places; the number of heads inferred from the width, or fixed, or keys and
    values of one head for all.
    """

    def __init__(self, channels: int, heads: int, size: int, how: str) -> None:
        super().__init__()
        self.heads, self.size = heads if how == "fixed" else -1, size
        self.repeats = heads if how == "shared" else 1
        width = heads * size
        self.q, self.out = nn.Conv2d(channels, width, 1), nn.Conv2d(width, channels, 1)
        self.k, self.v = (nn.Conv2d(channels, width // self.repeats, 1) for _ in range(2))

    def forward(self, x: Tensor) -> Tensor:
        maps = (layer(x).flatten(2) for layer in (self.q, self.k, self.v))
        q, k, v = (y.unflatten(1, (self.heads, self.size)).transpose(2, 3) for y in maps)
        k, v = (part.repeat_interleave(self.repeats, 1) for part in (k, v))
        mixed = (q @ k.transpose(2, 3)).softmax(-1) @ v
        return x + self.out(mixed.transpose(2, 3).flatten(1, 2).unflatten(2, x.shape[2:]))


class Excite(nn.Module):
    """Squeeze and excitation, of convolutions or of linear layers."""

    def __init__(self, channels: int, linear: bool) -> None:
        super().__init__()
        self.linear = linear
        kind = nn.Linear if linear else lambda before, after: nn.Conv2d(before, after, 1)
        self.squeeze, self.excite = kind(channels, 3), kind(3, channels)

    def forward(self, x: Tensor) -> Tensor:
        scale = x.mean((2, 3), keepdim=not self.linear)
        scale = self.excite(self.squeeze(scale).relu()).sigmoid()
        return x * (scale[:, :, None, None] if self.linear else scale)


class Add(nn.Module):
    """A branch and a shortcut, added; or the input, gated by the branch."""

    def __init__(self, branch: nn.Module, shortcut: nn.Module | None, product: bool = False):
        super().__init__()
        self.branch, self.shortcut, self.product = branch, shortcut, product

    def forward(self, x: Tensor) -> Tensor:
        # the branch gets a copy: what it changes in place is its own
        y = self.branch(x.clone())
        x = resized(x if self.shortcut is None else self.shortcut(x), y)
        return x * y.sigmoid() if self.product else x + y


class Join(nn.Module):
    """Branches that read the same, side by side."""

    def __init__(self, branches: Sequence[nn.Module]) -> None:
        super().__init__()
        self.branches = nn.ModuleList(branches)

    def forward(self, x: Tensor) -> Tensor:
        parts = [branch(x.clone()) for branch in self.branches]
        return torch.cat([resized(part, parts[0]) for part in parts], 1)


class Apart(nn.Module):
    """The channels in two parts, each through a branch of its own, and side by side again."""

    def __init__(self, branches: Sequence[nn.Module], widths: tuple[int, int], how: str) -> None:
        super().__init__()
        self.branches, self.widths, self.how = nn.ModuleList(branches), widths, how

    def forward(self, x: Tensor) -> Tensor:
        if self.how == "chunk":
            first, second = x.chunk(2, 1)
        elif self.how == "split":
            first, second = x.split(list(self.widths), 1)
        else:
            first, second = x[:, : self.widths[0]], x[:, self.widths[0] :]
        one, other = (f(y.clone()) for f, y in zip(self.branches, (first, second), strict=True))
        return torch.cat([one, resized(other, one)], 1)


class Parts(nn.Module):
    """Equal parts of the channels, each a unit with the same place of the others, at any width."""

    def __init__(self, branch: nn.Module, parts: int, way: str) -> None:
        super().__init__()
        self.branch, self.parts, self.way = branch, parts, way

    def forward(self, x: Tensor) -> Tensor:
        if self.way == "neighbours":
            return x.unflatten(1, (-1, self.parts)).amax(2)
        if self.way == "glu" and self.parts == 2:
            return functional.glu(x, 1)
        if self.way == "slices":
            width = x.shape[1] // self.parts
            parts = [x[:, k * width : (k + 1) * width] for k in range(self.parts)]
        else:
            parts = list(x.chunk(self.parts, 1))
        if self.way == "one half":
            changed = self.branch(parts[1].clone())
            return resized(parts[0], changed) * changed
        if self.way == "order":
            return torch.cat(parts[::-1], 1)
        if self.way == "steps":
            changed = self.branch(parts[-1].clone())
            return torch.cat([resized(part, changed) for part in (*parts, parts[0])] + [changed], 1)
        if self.way == "maximum":
            return torch.maximum(parts[0], parts[1])
        return parts[0] * sum(parts[1:]).sigmoid()


class Twice(nn.Module):
    """One block that runs twice in a row, with the same weights."""

    def __init__(self, block: nn.Module) -> None:
        super().__init__()
        self.block = block

    def forward(self, x: Tensor) -> Tensor:
        return self.block(self.block(x))
