"""Networks with branches: which layers go with a branch, which ones become constant, and why not.

Each network takes images (images, 3, 8, 8).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

ALL: list[Case] = []
NEEDED = "without it the output no longer depends on the input"


@dataclass(frozen=True)
class Case:
    """A network, its branches as (gone, constant) by name, and those that it can't do without."""

    name: str
    build: Callable[[], nn.Module]
    branches: dict[str, tuple[str, str]]
    needed: str


def case(needed: str = "", **branches: str):
    """Put a class among the cases; a branch is "gone layers > constant layers"."""

    def put(build: Callable[[], nn.Module]) -> Callable[[], nn.Module]:
        parts = {
            name.replace("__", "."): tuple(part.strip() for part in text.split(">"))
            for name, text in branches.items()
        }
        ALL.append(Case(build.__name__, build, parts, needed))
        return build

    return put


def conv(before: int, after: int, kernel: int = 3, **options) -> nn.Conv2d:
    options.setdefault("padding", kernel // 2)
    return nn.Conv2d(before, after, kernel, **options)


class Net(nn.Module):
    """Layers by name."""

    def __init__(self, **layers: nn.Module) -> None:
        super().__init__()
        for name, layer in layers.items():
            self.add_module(name, layer)


@case(needed="stem", inner="inner > outer")
class Plain(Net):
    """A residual block without norms; the sum is in place."""

    def __init__(self) -> None:
        super().__init__(stem=conv(3, 6), inner=conv(6, 4), outer=conv(4, 6), head=nn.Linear(6, 3))

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x).relu()
        y = self.outer(self.inner(x).relu())
        y += x
        return self.head(y.relu().mean((2, 3)))


@case(needed="stem", inner="inner > outer")
class NoBias(Net):
    """A residual block with norms and without biases."""

    def __init__(self) -> None:
        super().__init__(
            stem=conv(3, 6), inner=conv(6, 4, bias=False), norm=nn.BatchNorm2d(4),
            outer=conv(4, 6, bias=False), after=nn.BatchNorm2d(6), head=nn.Linear(6, 3),
        )  # fmt: skip

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x).relu()
        y = self.after(self.outer(self.norm(self.inner(x)).relu()))
        return self.head((x + y).relu().mean((2, 3)))


@case(needed="stem", inner="inner > outer")
class Projection(Net):
    """A block of stride 2: the projection carries the stream."""

    def __init__(self) -> None:
        super().__init__(
            stem=conv(3, 6), inner=conv(6, 4, stride=2, bias=False), norm=nn.BatchNorm2d(4),
            outer=conv(4, 8), after=nn.BatchNorm2d(8), project=conv(6, 8, 1, stride=2),
            head=nn.Linear(8, 3),
        )  # fmt: skip

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x).relu()
        y = self.after(self.outer(self.norm(self.inner(x)).relu_()))
        y += self.project(x)
        return self.head(y.relu_().mean((2, 3)))


@case(needed="stem", one="one two > three")
class Bottleneck(Net):
    """Three convolutions with norms in the body."""

    def __init__(self) -> None:
        super().__init__(
            stem=conv(3, 8), one=conv(8, 4, 1, bias=False), norm1=nn.BatchNorm2d(4),
            two=conv(4, 4, bias=False, groups=2), norm2=nn.BatchNorm2d(4),
            three=conv(4, 8, 1, bias=False), norm3=nn.BatchNorm2d(8), head=nn.Linear(8, 3),
        )  # fmt: skip

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x).relu()
        y = self.norm2(self.two(self.norm1(self.one(x)).relu())).relu()
        return self.head((x + self.norm3(self.three(y))).relu().mean((2, 3)))


@case(needed="stem", expand="expand depthwise squeeze excite > project",
      squeeze="squeeze > excite")  # fmt: skip
class Inverted(Net):
    """An inverted residual with a depthwise convolution, and squeeze and excitation."""

    def __init__(self) -> None:
        super().__init__(
            stem=conv(3, 4), expand=conv(4, 8, 1, bias=False), norm=nn.BatchNorm2d(8),
            depthwise=conv(8, 8, groups=8, bias=False), norm2=nn.BatchNorm2d(8),
            pool=nn.AdaptiveAvgPool2d(1), squeeze=conv(8, 3, 1), excite=conv(3, 8, 1),
            project=conv(8, 4, 1, bias=False), norm3=nn.BatchNorm2d(4), head=nn.Linear(4, 3),
        )  # fmt: skip

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        y = functional.relu6(self.norm(self.expand(x)))
        y = functional.relu6(self.norm2(self.depthwise(y)))
        y = y * self.excite(functional.silu(self.squeeze(self.pool(y)))).sigmoid()
        return self.head((x + self.norm3(self.project(y))).mean((2, 3)))


@case(needed="stem", one="one >", two="two three >", pooled="pooled >")
class Concat(Net):
    """Branches side by side, one of two layers and one behind a pool."""

    def __init__(self) -> None:
        super().__init__(
            stem=conv(3, 6), one=conv(6, 4, 1), two=conv(6, 3, 1), three=conv(3, 5),
            pooled=conv(6, 3, 1), norm=nn.BatchNorm2d(12), reader=conv(12, 4),
            head=nn.Linear(4, 3),
        )  # fmt: skip

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x).relu()
        pooled = self.pooled(functional.avg_pool2d(x, 3, 1, 1))
        x = torch.cat([self.one(x), self.three(self.two(x).relu()), pooled], 1)
        return self.head(self.reader(self.norm(x).relu()).mean((2, 3)))


@case(needed="stem", narrow1="narrow1 grow1 >",
      narrow2="narrow2 grow2 >")  # fmt: skip
class Dense(Net):
    """Dense growth: each layer reads all before it, norms first. Two strands carry the input."""

    def __init__(self) -> None:
        super().__init__(
            stem=conv(3, 6), norm1=nn.BatchNorm2d(6), narrow1=conv(6, 4, 1, bias=False),
            mid1=nn.BatchNorm2d(4), grow1=conv(4, 3, bias=False), norm2=nn.BatchNorm2d(9),
            narrow2=conv(9, 4, 1, bias=False), mid2=nn.BatchNorm2d(4),
            grow2=conv(4, 3, bias=False), last=nn.BatchNorm2d(12), reader=conv(12, 4, 1),
            head=nn.Linear(4, 3),
        )  # fmt: skip

    def forward(self, x: Tensor) -> Tensor:
        features = [self.stem(x)]
        for norm, narrow, mid, grow in (
            (self.norm1, self.narrow1, self.mid1, self.grow1),
            (self.norm2, self.narrow2, self.mid2, self.grow2),
        ):
            y = narrow(norm(torch.cat(features, 1)).relu())
            features.append(grow(mid(y).relu()))
        x = self.reader(self.last(torch.cat(features, 1)).relu())
        return self.head(x.mean((2, 3)))


@case(needed="", q="q k v > out", up="up > down")
class Transformer(Net):
    """Attention whose heads are inferred from the width, and an MLP."""

    def __init__(self) -> None:
        super().__init__(
            patches=nn.Conv2d(3, 8, 2, 2), norm1=nn.LayerNorm(8), q=nn.Linear(8, 8),
            k=nn.Linear(8, 8), v=nn.Linear(8, 8), out=nn.Linear(8, 8), norm2=nn.LayerNorm(8),
            up=nn.Linear(8, 16), down=nn.Linear(16, 8), head=nn.Linear(8, 3),
        )  # fmt: skip

    def forward(self, x: Tensor) -> Tensor:
        x = self.patches(x).flatten(2).transpose(1, 2)
        y = self.norm1(x)
        q, k, v = (
            layer(y).view(y.shape[0], 16, -1, 4).transpose(1, 2)
            for layer in (self.q, self.k, self.v)
        )
        y = functional.scaled_dot_product_attention(q, k, v)
        x = x + self.out(y.transpose(1, 2).flatten(2))
        x = x + self.down(functional.gelu(self.up(self.norm2(x))))
        return self.head(x.mean(1))


@case(needed="first")
class Chain(Net):
    """One layer after the other: no branch can go."""

    def __init__(self) -> None:
        super().__init__(
            first=conv(3, 6), second=conv(6, 4), norm=nn.BatchNorm2d(4), third=conv(4, 5),
            head=nn.Linear(5, 3),
        )  # fmt: skip

    def forward(self, x: Tensor) -> Tensor:
        x = self.norm(self.second(self.first(x).relu())).relu()
        return self.head(self.third(x).relu().mean((2, 3)))


@case(needed="", inner="inner > outer", last="last > final")
class Padded(Net):
    """Shortcuts that take every second pixel and pad the new channels with zeros."""

    def __init__(self) -> None:
        super().__init__(
            stem=conv(3, 4), inner=conv(4, 5, stride=2), outer=conv(5, 8, bias=False),
            norm=nn.BatchNorm2d(8), last=conv(8, 5), final=conv(5, 8, bias=False),
            norm2=nn.BatchNorm2d(8), head=nn.Linear(8, 3),
        )  # fmt: skip

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x).relu()
        short = functional.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, 2, 2))
        x = (short + self.norm(self.outer(self.inner(x).relu()))).relu()
        x = (x + self.norm2(self.final(self.last(x).relu()))).relu()
        return self.head(x.mean((2, 3)))


@case(needed="stem", down="down up >")
class UNet(Net):
    """A coarse level between a pool and a transposed convolution, joined to the fine one."""

    def __init__(self) -> None:
        super().__init__(
            stem=conv(3, 4), down=conv(4, 6), up=nn.ConvTranspose2d(6, 4, 2, 2),
            join=conv(8, 4), head=conv(4, 2, 1),
        )  # fmt: skip

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x).relu()
        y = self.up(self.down(functional.max_pool2d(x, 2)).relu())
        return self.head(self.join(torch.cat([x, y], 1)).relu())


@case(needed="stem", left="left right > merge", gate="gate > shut")
class Gated(Net):
    """Two layers multiplied in a body, and a gate over the stream."""

    def __init__(self) -> None:
        super().__init__(
            stem=nn.Conv1d(24, 6, 1), left=nn.Conv1d(6, 4, 3, padding=1),
            right=nn.Conv1d(6, 4, 1), slopes=nn.PReLU(4), merge=nn.Conv1d(4, 6, 1),
            gate=nn.Linear(6, 3), shut=nn.Linear(3, 6), head=nn.Linear(6, 3),
        )  # fmt: skip

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x.flatten(1, 2))
        x = x + self.merge(self.slopes(self.left(x)) * self.right(x).sigmoid())
        scale = self.shut(self.gate(x.mean(2)).relu()).sigmoid()
        return self.head((x * scale[:, :, None]).mean(2))
