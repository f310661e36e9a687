"""Blocks of well-known networks."""

import torch
from torch import nn
from torch.nn import functional

from structures.registry import PROOF, Net, structure

STREAM = ("norm", "across", "stream", *PROOF)


class ConvNeXt(Net):
    """Depthwise, norm over channels, perceptron, and a scale of the block's own."""

    def __init__(self, scale=1e-6):
        super().__init__(
            stem=nn.Conv2d(3, 8, 2, 2), spatial=nn.Conv2d(8, 8, 3, padding=1, groups=8),
            norm=nn.LayerNorm(8, eps=1e-6), expand=nn.Linear(8, 24), shrink=nn.Linear(24, 8),
            head=nn.Linear(8, 4),
        )  # fmt: skip
        self.layer_scale = nn.Parameter(scale * torch.ones(8, 1, 1))

    def forward(self, x):
        x = self.stem(x)
        y = self.norm(self.spatial(x).permute(0, 2, 3, 1))
        y = self.shrink(functional.gelu(self.expand(y))).permute(0, 3, 1, 2)
        return self.head((x + self.layer_scale * y).mean((2, 3)))


CONVNEXT = {"stem": STREAM, "spatial": STREAM, "shrink": ("parameter", "scale", *STREAM)}


@structure("expand", words=CONVNEXT)
def convnext_with_a_layer_scale_that_hides_mistakes():
    return ConvNeXt(1e-6)


@structure("expand", words=CONVNEXT)
def convnext_with_a_layer_scale_of_zero():
    return ConvNeXt(0.0)


@structure("hidden", example=lambda: torch.randn(2, 6))
class perceptron(Net):
    def __init__(self):
        super().__init__(hidden=nn.Linear(6, 16), head=nn.Linear(16, 4))

    def forward(self, x):
        return self.head(functional.gelu(self.hidden(x)))


@structure("hidden.0 hidden.3", example=lambda: torch.randn(4, 6))
class perceptron_with_norms(Net):
    def __init__(self):
        layers = nn.Linear(6, 16), nn.BatchNorm1d(16), nn.Tanh(), nn.Linear(16, 8), nn.Dropout()
        super().__init__(hidden=nn.Sequential(*layers), head=nn.Linear(8, 4))

    def forward(self, x):
        return self.head(self.hidden(x))


@structure("stem inner")
class residual_sum(Net):
    def __init__(self):
        super().__init__(
            stem=nn.Conv2d(3, 8, 3, padding=1), inner=nn.Conv2d(8, 6, 3, padding=1),
            outer=nn.Conv2d(6, 8, 3, padding=1, bias=False), norm=nn.BatchNorm2d(8),
            head=nn.Linear(8, 4),
        )  # fmt: skip

    def forward(self, x):
        x = self.stem(x).relu()
        x = x + self.norm(self.outer(self.inner(x).relu()))
        return self.head(x.relu().mean((2, 3)))


@structure("stem", words={"inner": PROOF, "outer": PROOF})
class zero_initialised(residual_sum):
    """The block's last norm starts at 0, and so does the head: nothing shows that is wrong."""

    def __init__(self):
        super().__init__()
        for parameter in (self.norm.weight, self.head.weight, self.head.bias):
            nn.init.zeros_(parameter)


@structure("stem inner grow")
class residual_with_projection(Net):
    def __init__(self):
        super().__init__(
            stem=nn.Conv2d(3, 6, 3, padding=1), inner=nn.Conv2d(6, 5, 3, 2, 1),
            outer=nn.Conv2d(5, 10, 3, padding=1), grow=nn.Conv2d(6, 10, 1, 2),
            head=nn.Linear(10, 4),
        )  # fmt: skip

    def forward(self, x):
        x = self.stem(x).relu()
        return self.head((self.grow(x) + self.outer(self.inner(x).relu())).mean((2, 3)))


@structure("stem one two after")
class concatenation(Net):
    def __init__(self):
        super().__init__(
            stem=nn.Conv2d(3, 6, 3, padding=1), one=nn.Conv2d(6, 4, 1), two=nn.Conv2d(6, 5, 1),
            norm=nn.BatchNorm2d(15), after=nn.Conv2d(15, 6, 1), head=nn.Linear(6, 4),
        )  # fmt: skip

    def forward(self, x):
        x = self.stem(x).relu()
        x = torch.cat([self.one(x), x, self.two(x)], 1)
        return self.head(self.after(self.norm(x).relu()).mean((2, 3)))


@structure("stem after")
class concatenated_with_itself(Net):
    def __init__(self):
        super().__init__(
            stem=nn.Conv2d(3, 6, 3, padding=1), after=nn.Conv2d(12, 6, 1), head=nn.Linear(6, 4)
        )

    def forward(self, x):
        x = self.stem(x).relu()
        return self.head(self.after(torch.cat([x, x], 1)).relu().mean((2, 3)))


@structure("stem after")
class concatenated_with_its_activations(concatenated_with_itself):
    """Both signs of a channel, as CReLU has them."""

    def forward(self, x):
        x = self.stem(x)
        return self.head(self.after(torch.cat([x.relu(), (-x).relu()], 1)).mean((2, 3)))


@structure("stem one two", words={"stem": PROOF, "one": PROOF, "two": PROOF})
class dense(Net):
    """Every layer reads all that came before."""

    def __init__(self):
        super().__init__(
            stem=nn.Conv2d(3, 6, 3, padding=1), one=nn.Conv2d(6, 4, 3, padding=1),
            two=nn.Conv2d(10, 4, 3, padding=1), head=nn.Linear(14, 4),
        )  # fmt: skip

    def forward(self, x):
        x = self.stem(x).relu()
        x = torch.cat([x, self.one(x).relu()], 1)
        x = torch.cat([x, self.two(x).relu()], 1)
        return self.head(x.mean((2, 3)))
